"""Accuracy against ε: the settings of a sweep in order of ε, as a table and as a figure."""

from __future__ import annotations

import io
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import write_atomic
from sweeps.analysis import SEED, Analysis
from sweeps.records import Sweep

MARKS = (
    ("accuracy", "held-out accuracy", "#0072B2", "o"),
    ("worst_partner", "worst partner", "#D55E00", "v"),
)
HEAD = ("privacy", "ε spent", "held-out accuracy", "worst partner", "macro F1", "seeds")


@dataclass(frozen=True)
class Place:
    """One level of privacy.

    Attributes:
        name: The choice, such as `epsilon_3`.
        epsilon: The mean of the spent ε; infinite without privacy.
        figures: The mean and the sample standard deviation over seeds, by objective.
        seeds: The number of runs.
    """

    name: str
    epsilon: float
    figures: Mapping[str, tuple[float, float | None]]
    seeds: int


def curve(analysis: Analysis) -> list[Place]:
    """The finished settings, from the most private one to the one without privacy.

    Raises:
        UserError: Other keys than privacy and seed were varied, or no trial is finished.
    """
    others = [k for k in analysis.sweep.document.swept if not k.startswith("privacy") and k != SEED]
    if others:
        raise UserError(
            f"{others[0]}: was varied too; a curve over ε needs a sweep of privacy and seed only"
        )
    found = []
    for setting in analysis.settings:
        if "epsilon" in setting.values:
            figures = {n: (v, setting.stds[n]) for n, v in setting.values.items()}
            name = " ".join(setting.varied.values()) or "-"
            found.append(Place(name, setting.values["epsilon"], figures, len(setting.trials)))
    if not found:
        raise UserError("sweep: no trial is finished; the same command continues the sweep")
    return sorted(found, key=lambda place: place.epsilon)


def markdown(places: Sequence[Place]) -> str:
    """The table: accuracies in percent, ± the sample standard deviation over seeds."""

    def cell(place: Place, name: str) -> str:
        mean, std = place.figures.get(name, (math.nan, None))
        if math.isnan(mean):
            return "-"
        return f"{100 * mean:.1f}" + ("" if std is None else f" ± {100 * std:.1f}")

    rows = [
        [
            place.name,
            "none: no guarantee" if math.isinf(place.epsilon) else f"{place.epsilon:.2f}",
            *(cell(place, name) for name in ("accuracy", "worst_partner", "macro_f1")),
            str(place.seeds),
        ]
        for place in places
    ]
    lines = [HEAD, ["---"] * len(HEAD), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def svg(places: Sequence[Place]) -> str:
    """The figure as SVG; the same places give the same text. Requires matplotlib."""
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": "fedaccord", "svg.fonttype": "none"}):
        out = io.StringIO()
        _draw(places).savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def write_curve(sweep: Sweep) -> list[Path]:
    """Write `curve.md` and `curve.svg` into the sweep's folder.

    Args:
        sweep: The sweep's directory.

    Returns:
        The paths of table and figure.

    Raises:
        UserError: The sweep has no curve, or matplotlib is missing.
    """
    places = curve(Analysis(sweep))
    if find_spec("matplotlib") is None:
        raise UserError("matplotlib: is missing; pip install 'fedaccord[report]'")
    table, figure = sweep.directory / "curve.md", sweep.directory / "curve.svg"
    write_atomic(table, markdown(places))
    write_atomic(figure, svg(places))
    return [table, figure]


def _draw(places: Sequence[Place]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    private = [p for p in places if math.isfinite(p.epsilon)]
    without = [p for p in places if math.isinf(p.epsilon)]
    for name, label, colour, shape in MARKS:
        means = [100 * p.figures[name][0] for p in private if name in p.figures]
        stds = [100 * (p.figures[name][1] or 0.0) for p in private if name in p.figures]
        at = [p.epsilon for p in private if name in p.figures]
        axes.errorbar(
            at, means, yerr=stds, color=colour, marker=shape, capsize=4, label=label, zorder=3
        )
        levels = [100 * p.figures[name][0] for p in without if name in p.figures]
        if levels:
            axes.axhline(
                statistics.fmean(levels),
                color=colour,
                linestyle=":",
                label=f"{label}, without privacy",
            )
    if len(private) > 1:
        axes.set_xscale("log")
    axes.set_xticks([p.epsilon for p in private], [f"{round(p.epsilon, 2):g}" for p in private])
    axes.minorticks_off()
    axes.set_xlabel("ε of one run (smaller is more private)")
    axes.set_ylabel("accuracy (%)")
    axes.grid(axis="y", color="#dddddd", zorder=0)
    axes.legend(frameon=False, fontsize=9)
    return figure
