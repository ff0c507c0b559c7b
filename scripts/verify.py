"""`fedaccord verify RUNDIR`."""

from __future__ import annotations

from pathlib import Path

from rich.text import Text

from inspection.verify import verify
from scripts.console import PlainConsole


def main(directory: str) -> int:
    """Print every problem; exit code 0 if there is none, else 1.

    Raises UserError when there is no audit log.
    """
    console = PlainConsole(soft_wrap=True)
    verdict = verify(Path(directory))
    for problem in verdict.problems:
        console.print(Text.assemble(("damaged", "red"), f": {problem}"))
    for note in verdict.notes:
        console.print(f"note: {note}")
    if not verdict.problems:
        console.print(
            f"The run is whole: {verdict.entries} entries, last hash {verdict.last_hash}. "
            "Compare the hash with a copy kept elsewhere to rule out that all of it was replaced."
        )
    return 1 if verdict.problems else 0
