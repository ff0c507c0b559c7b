"""`fedaccord sweep show|curve DIRECTORY`."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from scripts.console import PlainConsole
from sweeps.analysis import Analysis, short
from sweeps.composition import compose_trials
from sweeps.objectives import OBJECTIVES
from sweeps.page import BEST, shown
from sweeps.records import Sweep, read_sweep


def main(action: str, directory: str) -> int:
    """Show a sweep in the terminal, or plot accuracy against ε.

    Args:
        action: `show` or `curve`.
        directory: The directory of the sweep.

    Returns:
        The exit code.

    Raises:
        UserError: The directory holds no sweep, or the sweep has no curve.
    """
    sweep = read_sweep(Path(directory).expanduser().absolute())
    console = PlainConsole(soft_wrap=True)
    if action == "curve":
        from sweeps.curve import write_curve

        for path in write_curve(sweep):
            console.print(str(path))
    else:
        _show(sweep, console)
    return 0


def _show(sweep: Sweep, console: PlainConsole) -> None:
    analysis = Analysis(sweep)
    names = list(dict.fromkeys([*analysis.objectives, "accuracy", "epsilon"]))
    front = {number for setting in analysis.front for number in setting.trials}
    table = Table(
        title=f"{len(sweep.trials)} of {sweep.document.planned} trials (*: on the Pareto front)"
    )
    columns = ["trial", "state", *sweep.document.swept, *(OBJECTIVES[n].title for n in names)]
    for column in columns:
        table.add_column(column, overflow="fold")
    for trial in sweep.trials.values():
        values = sweep.measured.get(trial.number, {})
        varied = analysis.varied(trial.number)
        table.add_row(
            f"{trial.number}{'*' if trial.number in front else ''}",
            trial.state if trial.same_as is None else f"same as {trial.same_as}",
            *(short(varied.get(key, "-")) for key in sweep.document.swept),
            *(shown(name, values.get(name)) for name in names),
        )
    console.print(table)
    for trial in sweep.trials.values():
        if trial.reason:
            console.print(f"trial {trial.number} {trial.state}: {trial.reason}")
    if analysis.best is not None and analysis.objectives:
        first = analysis.objectives[0]
        value = shown(first, analysis.best.values[first], analysis.best.stds[first])
        console.print(
            f"best: {analysis.best.name} ({OBJECTIVES[first].title} {value})", markup=False
        )
        if (place := sweep.directory / BEST).exists():
            console.print(f"run it with: fedaccord simulate @{place}")
    composed = compose_trials(sweep)
    if composed is not None:
        console.print(composed.words())
