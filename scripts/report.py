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
    """Write report.html anew from what the directory holds.

    Raises UserError when there is nothing to report, or what is there is damaged.
    """
    place = Path(directory)
    try:
        path = _written(place)
    except OSError as error:
        raise UserError(f"{place}: no report can be written there ({error.strerror})") from error
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        # The figures are read as this version writes them: a file of another form ends here.
        raise UserError(
            f"{place}: does not hold figures of the form that this version writes "
            f"({type(error).__name__}); of a run, `fedaccord verify` says what was changed"
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
