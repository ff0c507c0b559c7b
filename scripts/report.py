"""`fedaccord report DIRECTORY`."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from server.report.run import write_report


def main(directory: str) -> int:
    """Write report.html anew from what the directory holds.

    Raises UserError when there is nothing to report.
    """
    path = write_report(Path(directory))
    Console(highlight=False, soft_wrap=True).print(f"report: {path}", markup=False)
    return 0
