"""Settings to stages: instantiate the composed configuration, and say what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.errors import UserError
from common.instantiate import instantiate
from strategies.appeal import Appeal
from strategies.client_level import ClientLevel, refusal
from strategies.pipeline import Pipeline
from strategies.screening import Screening

SECTIONS = ("screening", "pre", "fair", "robust", "appeal", "server", "client_level")


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
    pipeline = Pipeline(
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
        client_level=client_level(config),
    )
    if pipeline.client_level is not None and (
        why := refusal(pipeline.pre, pipeline.fair, pipeline.robust, pipeline.appeal)
    ):
        raise UserError(f"{why}: the proof of strategy.client_level does not hold; take it off")
    return pipeline


def client_level(config: Mapping[str, Any]) -> ClientLevel | None:
    """The stage that protects whole partners, where ``config`` has one."""
    if not (settings := config.get("client_level")):
        return None
    stage = instantiate(settings, "strategy.client_level", "strategies.client_level.")
    if not isinstance(stage, ClientLevel):
        raise UserError(
            "strategy.client_level._target_: must be strategies.client_level.ClientLevel"
        )
    return stage


def _appeal(config: Any) -> Appeal | None:
    if not config:
        return None
    appeal = instantiate(config, "strategy.appeal", "strategies.appeal.")
    if not isinstance(appeal, Appeal):
        raise UserError("strategy.appeal._target_: must be strategies.appeal.Appeal")
    return appeal


def client_level_spent(config: Mapping[str, Any], rounds: int) -> dict[str, float] | None:
    """What `rounds` rounds cost each partner as a whole; None without that stage."""
    stage = client_level(config)
    return None if stage is None else stage.spent(rounds)
