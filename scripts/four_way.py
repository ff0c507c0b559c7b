"""`fedaccord four-way`: privacy, attack and fairness on and off, on one base configuration."""

from __future__ import annotations

import json
import os
import shlex
import signal
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.table import Table

from common.config import config_hash, malicious
from common.errors import UserError, described
from common.files import write_atomic
from scripts import simulate
from scripts.compose import as_group_choice, compose_config
from scripts.console import PlainConsole
from sweeps.fourway import CELLS, HEAD, SCHEMA_VERSION, Cell, cells_of, markdown, rows
from sweeps.study_page import write_study_report

OFF = {"dp": ["privacy=none"], "attack": ["attack=none"], "fair": ["strategy.fair=uniform"]}
OWN = ("run.dir", "run.seed", "run.resume")
NAME = "fourway.json"
INTERRUPTED = 130


def main(
    overrides: Sequence[str], directory: str, seeds: str, dp: str, attack: str, fair: str
) -> int:
    """Run what is missing of the study and write its document, table and figure.

    Exit code 0 when every cell is there, 1 when one failed, 130 when interrupted.

    Raises UserError before anything is run when a setting is wrong or the directory holds another
    study.
    """
    # Before anything of Flower's is imported, which reads some of it then.
    os.environ.update(simulate.ENVIRONMENT)
    console = PlainConsole(soft_wrap=True)
    study = Path(directory).expanduser().absolute()
    document = plan(overrides, _seeds(seeds), {"dp": dp, "attack": attack, "fair": fair})
    _claim(study, document)
    if find_spec("matplotlib") is None:
        console.print("no figure without matplotlib: pip install 'fedaccord[report]'")
    try:
        failed = _run_missing(document, study, console)
    except KeyboardInterrupt:
        console.print("stopped; the same command continues")
        return INTERRUPTED
    console.print(_table(document))
    for name in failed:
        console.print(f"failed: {name} (the same command tries again)")
    console.print(f"study: {study}")
    return 1 if failed else 0


def plan(
    overrides: Sequence[str], seeds: Sequence[int], switches: Mapping[str, str]
) -> dict[str, Any]:
    """The study's document before anything has been run.

    Raises UserError when a cell's configuration is wrong, or an override is not the base's to make.
    """
    on = {name: shlex.split(text) for name, text in switches.items()}
    for override in overrides:
        key = as_group_choice(override).partition("=")[0].lstrip("+~").replace("/", ".")
        if key in ("privacy", "privacy.mode", "strategy.fair") or key.startswith("attack"):
            option = {"p": "--dp", "s": "--fair", "a": "--attack"}[key[0]]
            raise UserError(f"{key}: is switched by this command; use {option} '{override}'")
        if key in OWN:
            raise UserError(f"{key}: is set by this command; use --dir and --seeds")
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "base": list(overrides),
        "switches": {name: {"on": on[name], "off": OFF[name]} for name in ("dp", "attack", "fair")},
        "seeds": list(seeds),
        "attackers": [],
        "composed": {},
        "cells": [],
    }
    for cell in CELLS:
        config = compose_config(cell_overrides(document, cell))
        if (cell.dp, cell.attack) != (config.private, bool(config.attack.get("_target_"))):
            raise UserError(f"{cell.name}: --dp and --attack must switch these on")
        document["composed"][cell.name] = config_hash(config)
    for name, switch in (("none", "fair"), ("dp", "dp-fair")):
        if document["composed"][name] == document["composed"][switch]:
            raise UserError("--fair: changes nothing; name other weights than uniform")
    return document


def cell_overrides(document: Mapping[str, Any], cell: Cell) -> list[str]:
    """The overrides of one cell, without its seed and directory."""
    switches = document["switches"]
    chosen = {"dp": cell.dp, "attack": cell.attack, "fair": cell.fair}
    return [
        *document["base"],
        *(o for name, on in chosen.items() for o in switches[name]["on" if on else "off"]),
    ]


def _seeds(text: str) -> list[int]:
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 0 or len(set(found)) < len(found):
        raise UserError(f"--seeds: must be different whole numbers such as 0,1,2, got '{text}'")
    return found


def _claim(study: Path, document: Mapping[str, Any]) -> None:
    """Make `study` this study's own; more or fewer seeds are the same study."""
    path = study / NAME
    try:
        study.mkdir(parents=True, exist_ok=True)
        if path.exists():
            found = json.loads(path.read_text())
            if any(found.get(key) != document[key] for key in ("schema_version", "composed")):
                raise UserError(f"--dir: {study} holds another study; choose a new folder")
        elif any(study.iterdir()):
            raise UserError(f"--dir: {study} holds other files; choose a new folder")
        else:
            write_atomic(path, json.dumps(document, indent=2) + "\n")
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"--dir: {study} cannot be used ({type(error).__name__})") from error


def _began(place: Path) -> bool:
    return (place / "checkpoints").exists()


def _run_missing(document: dict[str, Any], study: Path, console: PlainConsole) -> list[str]:
    """Run every cell that has no result, on workers that all share; the names of those that failed.

    Raises KeyboardInterrupt when stopped (the cell that was under way goes on from its checkpoint),
    UserError when a cell could not begin.
    """
    from simulation import workers as runtime

    failed = []
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for seed in document["seeds"]:
            for cell in CELLS:
                place = study / f"seed-{seed}" / cell.name
                if not (place / "results.json").exists():
                    console.rule(f"{cell.name}, seed {seed}")
                    try:
                        _simulate(document, cell, seed, place)
                    except Exception as error:
                        why = described(error)
                        if not _began(place):
                            raise UserError(f"{cell.name}, seed {seed}: {why}") from error
                        console.print(f"failed: {why}")
                        failed.append(f"{cell.name}, seed {seed}")
                _write(study, document)
    finally:
        runtime.end()
        signal.signal(signal.SIGTERM, before)
    return failed


def _simulate(document: Mapping[str, Any], cell: Cell, seed: int, place: Path) -> None:
    """Run or continue one cell to its end; raises KeyboardInterrupt when it was stopped."""
    given = [f"run.resume={place}"]
    if not _began(place):
        given = [*cell_overrides(document, cell), f"run.seed={seed}", f"run.dir={place}"]
    if simulate.main(given, keep_workers=True) == INTERRUPTED:
        raise KeyboardInterrupt


def _write(study: Path, document: dict[str, Any]) -> None:
    """Bring the document, the table and the figure up to what is there."""
    found = {}
    for cell in CELLS:
        for seed in document["seeds"]:
            path = study / f"seed-{seed}" / cell.name / "results.json"
            if path.exists():
                found[cell, seed] = json.loads(path.read_text())
    if not found:
        return
    names = sorted(next(iter(found.values()))["final"]["partners"])
    attacked = compose_config(cell_overrides(document, Cell(False, True, False)))
    document["attackers"] = malicious(attacked, names)
    document["cells"] = cells_of(found, document["seeds"], document["attackers"])
    write_atomic(study / NAME, json.dumps(document, indent=2) + "\n")
    write_atomic(study / "fourway.md", markdown(document))
    write_study_report(study)
    if find_spec("matplotlib") is not None:
        from sweeps.fourway_figure import svg

        write_atomic(study / "fourway.svg", svg(document))


def _table(document: Mapping[str, Any]) -> Table:
    table = Table(*HEAD, title="Four ways", title_justify="left")
    for row in rows(document):
        table.add_row(*row)
    return table
