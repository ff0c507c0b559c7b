"""Parallel coordinates: one line per trial through one axis per quantity (Inselberg 1985)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from reporting.charts import HEIGHT, Scale, legend, ticks
from reporting.page import Html, element, join
from sweeps.analysis import number_of, short

# Thinner scales have room for fewer words.
MOST_LEVELS = 6


@dataclass(frozen=True)
class Axis:
    """One quantity: its name, and the value of every line as text; "" breaks a line."""

    name: str
    values: Sequence[str]


def parallel(
    axes: Sequence[Axis], strong: Sequence[bool], label: str, keys: tuple[str, str]
) -> Html:
    """Draw one line for each value of the axes.

    Args:
        axes: The quantities, with one value per line each.
        strong: Whether a line is emphasised by width and dash.
        label: The name of the drawing.
        keys: The names of the emphasised and of the other lines in the legend.
    """
    last = max(1, len(axes) - 1)
    across = [round(100 * n / last, 3) for n in range(len(axes))]
    scaled = [_positions(axis.values) for axis in axes]
    drawn = []
    # Emphasised lines last, so that they cover the others.
    for n in sorted(range(len(strong)), key=lambda n: strong[n]):
        points = [(x, found[0][n]) for x, found in zip(across, scaled, strict=True)]
        for run in _unbroken(points):
            shape = " ".join(f"{x},{y}" for x, y in run)
            kind = "path s2 thick" if strong[n] else "path s5 dash faint"
            drawn.append(element("polyline", points=shape, class_=kind))
    poles = [element("line", x1=x, x2=x, y1=0, y2=HEIGHT, class_="axis path") for x in across]
    stretched = element(
        "svg",
        *poles,
        *drawn,
        viewBox=f"0 0 100 {HEIGHT}",
        preserveAspectRatio="none",
        role="img",
        aria_label=label,
    )
    words = []
    for n, (x, axis, found) in enumerate(zip(across, axes, scaled, strict=True)):
        side = "last" if n == last and n else "first" if n == 0 else "between"
        words.append(element("b", axis.name, style=f"left:{x}%", class_=side))
        words += [
            element("span", text, style=f"left:{x}%;top:{y}px", class_=side) for text, y in found[1]
        ]
    # Names of keys are long: a drawing that is wider than the screen scrolls in its box.
    wide = f"min-width:{max(20, 10 * len(axes))}rem"
    plot = element("div", stretched, *words, class_="parallel", style=wide)
    signs = [
        (keys[0], _sign("path s2 thick")),
        (keys[1], _sign("path s5 dash faint")),
    ]
    return join(
        legend(signs),
        element("div", plot, class_="scroll", tabindex="0", role="region", aria_label=label),
    )


def _sign(kind: str) -> Html:
    return element("svg", element("line", x1=0, x2=26, y1=7, y2=7, class_=kind), aria_hidden="true")


def _positions(values: Sequence[str]) -> tuple[list[float | None], list[tuple[str, float]]]:
    """The position of each value, in pixels from the top, and the labels of the axis."""
    known = [v for v in values if v]
    numbers = {v: found for v in known if (found := number_of(v)) is not None}
    others = sorted({v for v in known if v not in numbers})
    if others or len(set(known)) <= 1:
        names = [*sorted(numbers, key=lambda v: numbers[v]), *others]
        places = {v: _up((n + 0.5) / len(names)) for n, v in enumerate(names)}
        written = [(short(v), places[v]) for v in names] if len(names) <= 12 else []
        return [places.get(v) for v in values], written
    low, high = min(numbers.values()), max(numbers.values())
    log = low > 0 and high / low > 10

    def place(value: float) -> float:
        bend = math.log10 if log else float
        return _up(Scale(bend(low), bend(high)).at(bend(value)) / 100)

    levels = [low, math.sqrt(low * high), high] if log else ticks(low, high, MOST_LEVELS)
    at = [place(numbers[v]) if v in numbers else None for v in values]
    return at, [(f"{level:.3g}", place(level)) for level in levels]


def _up(share: float) -> float:
    return round(HEIGHT * (1 - share), 2)


def _unbroken(points: Sequence[tuple[float, float | None]]) -> list[list[tuple[float, float]]]:
    found: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if y is None:
            found.append([])
        else:
            found[-1].append((x, y))
    return [run for run in found if len(run) > 1]
