"""The figure of the four-way study: the cost of privacy, fairness and an attack on one page."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# The colours of Okabe and Ito are distinguishable with any colour vision; shapes differ too.
MARKS = (
    ("mean_partner_accuracy", "mean of partners", "#0072B2", "o"),
    ("worst_partner_accuracy", "worst partner", "#D55E00", "v"),
    ("worst_group_accuracy", "worst group", "#009E73", "s"),
)
SHADE = "#f2e4da"


def svg(document: Mapping[str, Any]) -> str:
    """The figure as SVG text; the same document gives the same text."""
    with mpl.rc_context({"svg.hashsalt": "fedaccord", "svg.fonttype": "none"}):
        out = io.StringIO()
        draw(document).savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def draw(document: Mapping[str, Any]) -> Figure:
    """Accuracies on the left, attack loss and gap on the right; one row per cell."""
    figure = Figure(figsize=(10.5, 4.6), layout="constrained")
    wide, gap, loss = figure.subplots(
        1, 3, sharey=True, gridspec_kw={"width_ratios": [2.4, 1.0, 1.0]}
    )
    cells = document["cells"]
    for name, label, colour, shape in MARKS:
        _points(wide, cells, name, colour, shape, label)
    _points(gap, cells, "gap", "#444444", "D")
    _points(loss, cells, "attack_loss", "#444444", "X")
    for axes, title in (
        (wide, "accuracy"),
        (gap, "gap between groups\n(equalised odds)"),
        (loss, "accuracy lost\nto the attack"),
    ):
        _dress(axes, cells)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("percentage points", fontsize=9)
    for axes, name in ((gap, "gap"), (loss, "attack_loss")):
        known = [100 * c["mean"][name] for c in cells if c["mean"][name] is not None]
        low, high = min([0.0, *known]), max([5.0, *known])
        room = 0.12 * (high - low)
        axes.set_xlim(low - room, high + room)
        axes.axvline(0, color="#888888", linewidth=0.8)
    wide.set_yticks(range(len(cells)), [_label(cell) for cell in cells], fontsize=9)
    wide.invert_yaxis()
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def _points(
    axes: Axes,
    cells: list[dict[str, Any]],
    name: str,
    colour: str,
    shape: str,
    label: str | None = None,
) -> None:
    known = [(y, c) for y, c in enumerate(cells) if c["mean"][name] is not None]
    axes.errorbar(
        [100 * c["mean"][name] for _, c in known],
        [y for y, _ in known],
        xerr=[100 * (c["std"][name] or 0.0) for _, c in known],
        fmt=shape,
        color=colour,
        markersize=7,
        capsize=3,
        linestyle="none",
        label=label,
    )


def _dress(axes: Axes, cells: list[dict[str, Any]]) -> None:
    """Shade the attacked rows and remove the frame."""
    for y, cell in enumerate(cells):
        if cell["attack"]:
            axes.axhspan(y - 0.5, y + 0.5, color=SHADE, zorder=0, linewidth=0)
    axes.set_ylim(-0.5, len(cells) - 0.5)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _label(cell: Mapping[str, Any]) -> str:
    privacy = "no privacy"
    if cell["dp"]:
        spent = cell["mean"]["epsilon"]
        privacy = "private" if spent is None else f"private, ε = {spent:.1f}"
    parts = [privacy, *(name for name in ("fair", "attack") if cell[name])]
    return " + ".join(parts)
