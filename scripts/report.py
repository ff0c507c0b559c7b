"""`fedaccord report DIRECTORY`."""

from __future__ import annotations

from pathlib import Path

from common.errors import UserError
from reporting.run import write_report
from scripts.console import PlainConsole
from sweeps.composition import compose_trials
from sweeps.page import write_sweep_report
from sweeps.records import DOCUMENT, read_sweep
from sweeps.study_page import STUDY, write_study_report


def main(directory: str) -> int:
    """Rewrite report.html from the files of a run, a study or a sweep.

    Args:
        directory: The directory of the run, study or sweep.

    Returns:
        The exit code.

    Raises:
        UserError: The directory has nothing to report, or its files are damaged.
    """
    place = Path(directory)
    try:
        path = _written(place)
    except OSError as error:
        raise UserError(f"{place}: the report cannot be written ({error.strerror})") from error
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        # Figures in the form of another version.
        raise UserError(
            f"{place}: the figures do not have the form of this version ({type(error).__name__}); "
            "for a run, `fedaccord verify` lists the changed files"
        ) from error
    PlainConsole(soft_wrap=True).print(f"report: {path}")
    return 0


def _written(place: Path) -> Path:
    if (place / DOCUMENT).exists():
        sweep = read_sweep(place)
        return write_sweep_report(sweep, compose_trials(sweep))
    if (place / STUDY).exists():
        return write_study_report(place)
    return write_report(place)
