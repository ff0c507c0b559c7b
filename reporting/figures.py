"""What figures are called in the card and the report, and how a task's own figures are shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.config import Config
from reporting.markdown import percent

GAP_NAMES = {
    "accuracy": "accuracy",
    "demographic_parity": "demographic parity (share predicted positive)",
    "equal_opportunity": "equal opportunity (TPR)",
    "equalized_odds": "equalised odds (TPR or FPR)",
}
FIGURES = {
    "entity_f1": "entity F1",
    "micro_f1": "micro F1",
    "macro_f1": "macro F1",
    "mae": "mean absolute error",
    "rmse": "root mean square error",
    "pearson": "Pearson's r",
    "spearman": "Spearman's rank correlation",
    "r2": "R²",
    "perplexity": "perplexity",
}


def gap_names(config: Config) -> dict[str, str]:
    """The gaps that mean something for the task of a run, in words."""
    return {k: v for k, v in GAP_NAMES.items() if config.about.classes or k == "accuracy"}


def task_figures(config: Config, final: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The task's own figures in words, the one to look at first in the first place."""
    return [
        (FIGURES[name], show_figure(name, final[name]))
        for name in config.about.figure_names
        if final.get(name) is not None
    ]


def show_figure(name: str, value: float | None) -> str:
    """A task's figure: a share as such, an error or a correlation as a number."""
    if value is None:
        return "-"
    return percent(value) if name.endswith("f1") else f"{value:.4g}"
