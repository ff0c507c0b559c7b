"""The words for gaps, and a task's own figures as the card and the report show them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.config import Config

GAP_NAMES = {
    "accuracy": "accuracy",
    "demographic_parity": "demographic parity (share predicted positive)",
    "equal_opportunity": "equal opportunity (TPR)",
    "equalized_odds": "equalised odds (TPR or FPR)",
}


def gap_names(config: Config) -> dict[str, str]:
    """The gaps that mean something for the task of a run, in words."""
    return {k: v for k, v in GAP_NAMES.items() if config.about.classes or k == "accuracy"}


def task_figures(config: Config, final: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The task's own figures in words, the one to look at first in the first place."""
    return [
        (figure.words, figure.show(final[figure.name]))
        for figure in config.about.own_figures
        if final.get(figure.name) is not None
    ]
