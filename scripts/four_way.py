"""`fedaccord four-way`: privacy, attack and fairness on and off, on one base configuration."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.table import Table

from common.errors import UserError, described
from scripts import simulate
from scripts.compose import compose_config
from scripts.console import PlainConsole
from simulation.prepare import ENVIRONMENT
from sweeps.fourway import HEAD, Cell, rows
from sweeps.fourway_plan import parse_seeds, plan
from sweeps.fourway_study import claim, has_begun, run_missing, run_overrides


def main(
    overrides: Sequence[str], directory: str, seeds: str, dp: str, attack: str, fair: str
) -> int:
    """Run the missing cells of the study, and write its document, table and figure.

    Args:
        overrides: Hydra overrides of the base configuration.
        directory: The study's folder.
        seeds: Whole numbers with commas between them.
        dp: The overrides that switch privacy on.
        attack: The overrides that switch the attack on.
        fair: The overrides that switch fair weights on.

    Returns:
        The exit code: 0 when every cell has a result, 1 when one failed, 130 when interrupted.

    Raises:
        UserError: A setting is wrong, or the folder holds something else; nothing has been run.
    """
    os.environ.update(ENVIRONMENT)
    console = PlainConsole(soft_wrap=True)
    study = Path(directory).expanduser().absolute()
    switches = {"dp": dp, "attack": attack, "fair": fair}
    document = plan(overrides, parse_seeds(seeds), switches, compose_config)
    claim(study, document)
    if find_spec("matplotlib") is None:
        console.print("The figure needs matplotlib: pip install 'fedaccord[report]'")
    try:
        failed = _run(document, study, console)
    except KeyboardInterrupt:
        console.print("stopped; the same command continues the study")
        return simulate.INTERRUPTED
    console.print(_table(document))
    for name in failed:
        console.print(f"failed: {name} (the same command tries again)")
    console.print(f"study: {study}")
    return 1 if failed else 0


def _run(document: dict[str, Any], study: Path, console: PlainConsole) -> list[str]:
    """Run every cell without a result, all with the same workers; returns those that failed.

    Raises:
        KeyboardInterrupt: The study was stopped; the cell continues from its checkpoint.
        UserError: A cell could not begin.
    """
    from simulation import workers as runtime

    failed = []

    def run(cell: Cell, seed: int, directory: Path) -> None:
        name = f"{cell.name}, seed {seed}"
        console.rule(name)
        given = run_overrides(document, cell, seed, directory)
        try:
            code = simulate.main(given, keep_workers=True)
        except Exception as error:
            if not has_begun(directory):
                raise UserError(f"{name}: {described(error)}") from error
            console.print(f"failed: {described(error)}")
            failed.append(name)
        else:
            if code == simulate.INTERRUPTED:
                raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run_missing(document, study, run, compose_config)
    finally:
        runtime.end()
        signal.signal(signal.SIGTERM, before)
    return failed


def _table(document: Mapping[str, Any]) -> Table:
    table = Table(*HEAD, title="Four ways", title_justify="left")
    for row in rows(document):
        table.add_row(*row)
    return table
