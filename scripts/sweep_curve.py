"""The privacy-utility curve of a sweep as files: `curve.svg` and `curve.md` in its folder."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from common.errors import UserError
from common.files import write_atomic
from sweeps.analysis import Analysis
from sweeps.curve import curve, markdown, svg
from sweeps.records import Sweep


def draw(sweep: Sweep) -> list[Path]:
    """Write the table and the figure and return their paths.

    Raises UserError when no curve can be drawn, or matplotlib is missing.
    """
    places = curve(Analysis(sweep))
    if find_spec("matplotlib") is None:
        raise UserError("the figure needs matplotlib: pip install 'fedaccord[report]'")
    table, figure = sweep.directory / "curve.md", sweep.directory / "curve.svg"
    write_atomic(table, markdown(places))
    write_atomic(figure, svg(places))
    return [table, figure]
