"""Figures as inline SVG, each with a table of the same values.

Horizontal positions are percentages and text is HTML, so that a figure fills any width while its
letters keep their size.  Nothing here depends on what is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from reporting.page import Html, element, join
from reporting.words import percent

Shape = Literal["circle", "triangle", "square", "diamond"]
SHAPES: tuple[Shape, ...] = ("circle", "triangle", "square", "diamond")


def table(head: Sequence[str], rows: Sequence[Sequence[object]], caption: str = "") -> Html:
    """A table whose first column names the row; columns of figures are aligned to the right."""
    numeric = [
        bool(rows) and all(_is_figure(row[column]) for row in rows) for column in range(len(head))
    ]

    def row(cells: Sequence[object]) -> Html:
        first = element("th", cells[0], scope="row", class_="n" if numeric[0] else None)
        rest = [
            element("td", cell, class_="n" if right else None)
            for cell, right in zip(cells[1:], numeric[1:], strict=True)
        ]
        return element("tr", first, *rest)

    titles = [
        element("th", name, scope="col", class_="n" if right else None)
        for name, right in zip(head, numeric, strict=True)
    ]
    found = element(
        "table",
        element("caption", caption) if caption else None,
        element("thead", element("tr", *titles)),
        element("tbody", *(row(cells) for cells in rows)),
    )
    # A box that scrolls must be reachable by keyboard.
    return element(
        "div", found, class_="scroll", tabindex="0", role="region", aria_label=caption or "Table"
    )


def _is_figure(cell: object) -> bool:
    text = str(cell)
    return text == "-" or text[:1].isdigit() or (text[:1] in "-+∞[" and not text[1:2].isalpha())


def figure(title: str, text: str, drawing: Html, alternative: Html, summary: str = "") -> Html:
    """A drawing under its title, with `alternative` (a table) to unfold."""
    caption = element("figcaption", element("b", title), element("span", text) if text else None)
    unfold = element("details", element("summary", summary or "The same as a table"), alternative)
    return element("figure", caption, drawing, unfold)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers between `low` and `high`, with at most `most` steps between them."""
    if not high > low:
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(m * power for m in (1, 2, 5, 10, 20) if (high - low) / (m * power) <= most)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(n * step, 12) for n in range(first, last + 1)]


def room(values: Sequence[float], least: float, low: float, high: float) -> tuple[float, float]:
    """A range around `values` of at least `least`, padded, within [low, high]."""
    if not values:
        return low if math.isfinite(low) else 0.0, high if math.isfinite(high) else least
    bottom, top = min(values), max(values)
    pad = max(0.08 * (top - bottom), (least - (top - bottom)) / 2)
    return max(low, bottom - pad), min(high, top + pad)


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` as percentages."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """The position of `value`, 0 to 100; a value beyond an end is at that end."""
        span = (self.high - self.low) or 1.0
        return round(100 * min(1.0, max(0.0, (value - self.low) / span)), 3)


def mark(
    shape: Shape, x: float, y: float, tone: int, title: str = "", hollow: bool = False
) -> Html:
    """A mark of about 11 px at x % and y px; `title` is shown on hover."""
    kind = f"s{tone} hollow" if hollow else f"f{tone}"
    inner = element("title", title) if title else None
    if shape == "circle":
        return element("circle", inner, cx=f"{x}%", cy=y, r=5, class_=kind)
    points = {
        "square": "-4.8,-4.8 4.8,-4.8 4.8,4.8 -4.8,4.8",
        "triangle": "-6,-4.6 6,-4.6 0,6",
        "diamond": "0,-6.4 6.4,0 0,6.4 -6.4,0",
    }[shape]
    # A nested svg moves by a percentage, which a transform cannot.
    return element("svg", element("polygon", inner, points=points, class_=kind), x=f"{x}%", y=y)


@dataclass(frozen=True)
class Series:
    """One line of points, or with `joined=False` a cloud; None breaks the line.

    Attributes:
        spread: half the height of a band around the line, at each point.
    """

    name: str
    ys: Sequence[float | None]
    spread: Sequence[float | None] | None = None
    joined: bool = True


HEIGHT = 260
# A line of more points says more without marks; the table has every value.
MOST_MARKS = 90


def lines(
    xs: Sequence[float],
    series: Sequence[Series],
    label: str,
    bounds: tuple[float, float],
    *,
    show: Callable[[float], str] = percent,
    x_name: str = "",
    x_bounds: tuple[float, float] | None = None,
) -> Html:
    """A line chart.

    Args:
        xs: the places of the points.
        series: the lines; colour, shape and dash tell them apart.
        label: names the chart for a screen reader.
        bounds: the lowest and the highest y.
        show: a y as text.
        x_name: what the x axis is called.
        x_bounds: the lowest and the highest x; those of `xs` unless given.
    """
    low_x, high_x = x_bounds or (min(xs, default=0.0), max(xs, default=1.0))
    across, up = Scale(low_x, high_x), Scale(*bounds)

    def x_of(x: float) -> float:
        return across.at(x) if high_x > low_x else 50.0

    def y_of(y: float) -> float:
        return round(HEIGHT * (1 - up.at(y) / 100), 2)

    shapes, marks = [], []
    for n, one in enumerate(series):
        tone = n % 5 + 1
        if one.spread is not None:
            shapes.append(_band(xs, one, x_of, y_of, tone))
        if one.joined:
            shapes += _paths(xs, one, x_of, y_of, tone, dashed=n % 2 == 1)
        marks += [
            mark(
                SHAPES[n % 4],
                x_of(x),
                y_of(y),
                tone,
                f"{one.name}, {x_name or 'at'} {x:g}: {show(y)}",
            )
            for x, y in zip(xs, one.ys, strict=True)
            if y is not None
        ]
    if len(marks) > MOST_MARKS:
        marks = []
    levels = [(y_of(t), show(t)) for t in ticks(*bounds)]
    columns = [(x_of(x), f"{x:g}") for x in ticks(low_x, high_x, 9) if x_bounds or x == int(x)]
    keys = [
        (one.name, _key(n % 5 + 1, SHAPES[n % 4], one.joined, n % 2 == 1))
        for n, one in enumerate(series)
    ]
    return join(legend(keys), _plot(shapes, marks, levels, columns, label, x_name))


def _plot(
    shapes: Sequence[Html],
    marks: Sequence[Html],
    levels: Sequence[tuple[float, str]],
    columns: Sequence[tuple[float, str]],
    label: str,
    x_name: str,
) -> Html:
    """A coordinate system with its ticks and what is drawn in it.

    Args:
        shapes: lines and bands, whose width is stretched from 100 to that of the figure.
        marks: drawn over them, not stretched.
        levels: height in px and text of each horizontal grid line.
        columns: position in percent and text of each tick on the x axis.
        label: names the drawing for a screen reader.
        x_name: what the x axis is called.
    """
    grid = [element("line", x1="0%", x2="100%", y1=y, y2=y, class_="grid") for y, _ in levels]
    stretched = element(
        "svg",
        *shapes,
        viewBox=f"0 0 100 {HEIGHT}",
        preserveAspectRatio="none",
        width="100%",
        height=HEIGHT,
    )
    drawing = element("svg", *grid, stretched, *marks, role="img", aria_label=label)
    left = [element("span", text, style=f"top:{y}px") for y, text in levels]
    below = [element("span", text, style=f"left:{x}%") for x, text in columns]
    named = element("em", x_name) if x_name else None
    return element(
        "div",
        element("div", *left, class_="left", aria_hidden="true"),
        drawing,
        element("div", *below, named, class_="below", aria_hidden="true"),
        class_="plot",
    )


def _runs(xs: Sequence[float], ys: Sequence[float | None]) -> list[list[tuple[float, float]]]:
    """The stretches without a gap."""
    found: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(xs, ys, strict=True):
        if y is None:
            found.append([])
        else:
            found[-1].append((x, y))
    return [run for run in found if run]


def _paths(
    xs: Sequence[float],
    one: Series,
    x_of: Callable[[float], float],
    y_of: Callable[[float], float],
    tone: int,
    dashed: bool,
) -> list[Html]:
    kind = f"path s{tone}" + (" dash" if dashed else "")
    return [
        element("polyline", points=" ".join(f"{x_of(x)},{y_of(y)}" for x, y in run), class_=kind)
        for run in _runs(xs, one.ys)
        if len(run) > 1
    ]


def _band(
    xs: Sequence[float],
    one: Series,
    x_of: Callable[[float], float],
    y_of: Callable[[float], float],
    tone: int,
) -> Html:
    known = [
        (x, y, s)
        for x, y, s in zip(xs, one.ys, one.spread or [], strict=True)
        if y is not None and s is not None
    ]
    edge = [(x, y + s) for x, y, s in known] + [(x, y - s) for x, y, s in reversed(known)]
    points = " ".join(f"{x_of(x)},{y_of(y)}" for x, y in edge)
    return element("polygon", points=points, class_=f"band f{tone}")


def legend(keys: Sequence[tuple[str, Html]]) -> Html:
    """A legend: each name after its mark."""
    items = [element("li", sign, element("span", name)) for name, sign in keys]
    return element("ul", *items, class_="legend")


def _key(tone: int, shape: Shape, joined: bool = False, dashed: bool = False) -> Html:
    line = element(
        "line", x1=0, x2=26, y1=7, y2=7, class_=f"path s{tone}" + (" dash" if dashed else "")
    )
    return element("svg", line if joined else None, mark(shape, 50, 7, tone), aria_hidden="true")


@dataclass(frozen=True)
class Point:
    """A value in a row, with its interval; `tone` and `shape` tell kinds of values apart."""

    value: float
    interval: tuple[float, float] | None = None
    tone: int = 1
    shape: Shape = "circle"
    title: str = ""
    hollow: bool = False


@dataclass(frozen=True)
class Row:
    """A row of points: its name, a note under the name, and its figure as text."""

    name: str
    points: Sequence[Point]
    shown: str
    note: str = ""
    bar: bool = False


def rows(
    items: Sequence[Row],
    bounds: tuple[float, float],
    label: str,
    *,
    show: Callable[[float], str] = percent,
    limit: tuple[float, str] | None = None,
) -> Html:
    """One line per row: its name, marks with intervals on a common scale, and its figure as text.

    Args:
        items: the rows; one with `bar` is drawn as a bar from the left end.
        bounds: the ends of the scale.
        label: names the chart for a screen reader.
        show: a value of the scale as text.
        limit: value and name of a dashed line through all rows.
    """
    across = Scale(*bounds)
    levels = ticks(*bounds)
    cells: list[Html] = []
    for item in items:
        inside = [
            element(
                "line", x1=f"{across.at(t)}%", x2=f"{across.at(t)}%", y1=0, y2=30, class_="grid"
            )
            for t in levels
        ]
        for point in item.points:
            inside += _drawn(point, across, item.bar)
        if limit:
            x = f"{across.at(limit[0])}%"
            inside.append(element("line", x1=x, x2=x, y1=0, y2=30, class_="limit"))
        note = element("small", item.note) if item.note else None
        cells += [
            element("div", item.name, note, class_="name"),
            element("svg", *inside, role="img", aria_label=f"{item.name}: {item.shown}"),
            element("div", item.shown, class_="value"),
        ]
    scale = [element("span", show(t), style=f"left:{across.at(t)}%") for t in levels]
    if limit:
        sign = element("svg", element("line", x1=13, x2=13, y1=-2, y2=16, class_="limit"))
        cells.insert(0, element("div", legend([(limit[1], sign)]), class_="full"))
    cells.append(element("div", *scale, class_="ticks", aria_hidden="true"))
    return element("div", *cells, class_="rows", role="group", aria_label=label)


def _drawn(point: Point, across: Scale, bar: bool) -> list[Html]:
    x = across.at(point.value)
    found = []
    if bar:
        inner = element("title", point.title) if point.title else None
        found.append(
            element("rect", inner, x="0%", y=8, width=f"{x}%", height=14, class_=f"f{point.tone}")
        )
        return found
    if point.interval:
        low, high = (f"{across.at(end)}%" for end in point.interval)
        found.append(
            element("line", x1=low, x2=high, y1=15, y2=15, class_=f"whisker s{point.tone}")
        )
        found += [
            element("line", x1=end, x2=end, y1=10, y2=20, class_=f"whisker s{point.tone}")
            for end in (low, high)
        ]
    found.append(mark(point.shape, x, 15, point.tone, point.title, point.hollow))
    return found


def key(name: str, tone: int, shape: Shape) -> tuple[str, Html]:
    """An entry of a legend for marks."""
    return name, _key(tone, shape)
