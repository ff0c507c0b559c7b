"""`fedaccord report DIRECTORY`."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from scripts.sweep_privacy import compose_trials
from server.report.run import write_report
from server.report.study import STUDY, write_study_report
from server.report.sweep import write_sweep_report
from server.sweep.records import DOCUMENT, read_sweep


def main(directory: str) -> int:
    """Write report.html anew from what the directory holds.

    Raises UserError when there is nothing to report.
    """
    place = Path(directory)
    if (place / DOCUMENT).exists():
        sweep = read_sweep(place)
        path = write_sweep_report(sweep, compose_trials(sweep))
    elif (place / STUDY).exists():
        path = write_study_report(place)
    else:
        path = write_report(place)
    Console(highlight=False, soft_wrap=True).print(f"report: {path}", markup=False)
    return 0
