"""`fedaccord verify RUNDIR`."""

from __future__ import annotations

from pathlib import Path

from rich.text import Text

from inspection.verify import verify
from scripts.console import PlainConsole


def main(directory: str) -> int:
    """Print every problem.

    Args:
        directory: The run directory.

    Returns:
        The exit code: 0 if there is no problem, else 1.

    Raises:
        UserError: The directory has no audit log.
    """
    console = PlainConsole(soft_wrap=True)
    verdict = verify(Path(directory))
    for problem in verdict.problems:
        console.print(Text.assemble(("damaged", "red"), f": {problem}"))
    for note in verdict.notes:
        console.print(f"note: {note}")
    if not verdict.problems:
        console.print(
            f"The run is intact: {verdict.entries} entries, last hash {verdict.last_hash}. "
            "Compare this hash with a copy from another place to rule out that the whole log was "
            "replaced."
        )
    return 1 if verdict.problems else 0
