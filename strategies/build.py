"""Settings to stages: instantiate the composed configuration, and say what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.errors import UserError
from common.instantiate import instantiate
from strategies.appeal import Appeal
from strategies.pipeline import Pipeline
from strategies.screening import Screening

SECTIONS = ("screening", "pre", "fair", "robust", "appeal", "server")


def build(config: Mapping[str, Any]) -> Pipeline:
    """The pipeline that ``config`` (the tree under ``strategy``) describes.

    Raises:
        UserError: one line that names the key, for an unknown target, an unknown or missing
            setting, or a value out of range.
    """
    for key in config:
        if key not in SECTIONS:
            raise UserError(f"strategy.{key}: unknown; it takes {', '.join(SECTIONS)}")
    for key in ("fair", "robust", "server"):
        if not config.get(key):
            raise UserError(f"strategy.{key}: is missing; choose one")
    screening = config.get("screening")
    appeal = config.get("appeal")
    return Pipeline(
        screening=(
            instantiate(screening, "strategy.screening", "strategies.screening.")
            if screening
            else Screening()
        ),
        pre={
            str(name): instantiate(stage, f"strategy.pre.{name}", "strategies.pre.")
            for name, stage in (config.get("pre") or {}).items()
        },
        fair=instantiate(config["fair"], "strategy.fair", "strategies.fair."),
        robust=instantiate(config["robust"], "strategy.robust", "strategies.robust."),
        appeal=_appeal(appeal),
        server=instantiate(config["server"], "strategy.server", "strategies.optimizers."),
    )


def _appeal(config: Any) -> Appeal | None:
    if not config:
        return None
    appeal = instantiate(config, "strategy.appeal", "strategies.appeal.")
    if not isinstance(appeal, Appeal):
        raise UserError("strategy.appeal._target_: must be strategies.appeal.Appeal")
    return appeal
