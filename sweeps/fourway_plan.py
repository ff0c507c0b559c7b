"""The plan of a four-way study: one base configuration, and what is switched in each cell."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from common.config import Config, config_hash
from common.errors import UserError
from sweeps.fourway import CELLS, SCHEMA_VERSION, Cell

OFF = {"dp": ["privacy=none"], "attack": ["attack=none"], "fair": ["strategy.fair=uniform"]}
SET_BY_STUDY = ("run.dir", "run.seed", "run.resume")
Compose = Callable[[Sequence[str]], Config]


def plan(
    overrides: Sequence[str], seeds: Sequence[int], switches: Mapping[str, str], compose: Compose
) -> dict[str, Any]:
    """The study's document before its first run.

    Args:
        overrides: Hydra overrides of the base configuration.
        seeds: The seeds; every cell is run once for each.
        switches: The overrides that switch `dp`, `attack` and `fair` on, as in a shell.
        compose: Makes a configuration from overrides.

    Raises:
        UserError: The configuration of a cell is wrong, or an override belongs to the study.
    """
    on = {name: shlex.split(text) for name, text in switches.items()}
    for override in overrides:
        _refuse_switched(override)
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "base": list(overrides),
        "switches": {name: {"on": on[name], "off": OFF[name]} for name in OFF},
        "seeds": list(seeds),
        "attackers": [],
        "composed": {},
        "cells": [],
    }
    for cell in CELLS:
        config = compose(cell_overrides(document, cell))
        if (cell.dp, cell.attack) != (config.private, bool(config.attack.get("_target_"))):
            raise UserError(
                f"--dp, --attack: the cell {cell.name} needs privacy {_on(cell.dp)} and the attack "
                f"{_on(cell.attack)}; name overrides that switch them on"
            )
        document["composed"][cell.name] = config_hash(config)
    for name, switch in (("none", "fair"), ("dp", "dp-fair")):
        if document["composed"][name] == document["composed"][switch]:
            raise UserError("--fair: changes nothing; name fair weights other than uniform")
    return document


def cell_overrides(document: Mapping[str, Any], cell: Cell) -> list[str]:
    """The overrides of one cell, without its seed and directory."""
    switches = document["switches"]
    chosen = {"dp": cell.dp, "attack": cell.attack, "fair": cell.fair}
    return [
        *document["base"],
        *(o for name, on in chosen.items() for o in switches[name]["on" if on else "off"]),
    ]


def parse_seeds(text: str) -> list[int]:
    """The seeds of `--seeds`.

    Raises:
        UserError: The text is not a list of different whole numbers of at least 0.
    """
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 0 or len(set(found)) < len(found):
        raise UserError(f"--seeds: must be different whole numbers, not '{text}'; e.g. 0,1,2")
    return found


def _refuse_switched(override: str) -> None:
    """Raise UserError when the study itself sets the key of `override`."""
    key = override.partition("=")[0].lstrip("+~").replace("/", ".")
    if key in ("privacy", "privacy.mode", "strategy.fair") or key.startswith("attack"):
        option = {"p": "--dp", "s": "--fair", "a": "--attack"}[key[0]]
        raise UserError(f"{key}: is switched by this command; use {option} '{override}'")
    if key in SET_BY_STUDY:
        raise UserError(f"{key}: is set by this command; use --dir and --seeds")


def _on(switched: bool) -> str:
    return "on" if switched else "off"
