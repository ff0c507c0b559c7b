"""`fedaccord report DIRECTORY`."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from server.report.run import write_report
from server.report.study import STUDY, write_study_report


def main(directory: str) -> int:
    """Write report.html anew from what the directory holds.

    Raises UserError when there is nothing to report.
    """
    place = Path(directory)
    path = write_study_report(place) if (place / STUDY).exists() else write_report(place)
    Console(highlight=False, soft_wrap=True).print(f"report: {path}", markup=False)
    return 0
