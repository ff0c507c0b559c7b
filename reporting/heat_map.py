"""A table of coloured cells: what happened to each partner in each round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reporting.page import Html, element, join


@dataclass(frozen=True)
class HeatCell:
    """What happened, as one letter (`sign`), a style of the page (`kind`) and a sentence."""

    kind: str
    sign: str
    reason: str


def heat_map(
    columns: Sequence[str],
    lines_: Sequence[tuple[str, Sequence[HeatCell]]],
    identity: str,
    label: str,
) -> Html:
    """A table of cells that show their reasons on hover, touch and focus (by arrow keys).

    Args:
        columns: the columns' names.
        lines_: name and cells of each line.
        identity: prefix of the element ids; unique in the page.
        label: names the table for a screen reader.
    """
    told = f"{identity}-told"
    head = [element("th", element("span", "partner", class_="soft"), scope="col")]
    head += [element("th", name, scope="col") for name in columns]
    body = []
    for y, (name, cells) in enumerate(lines_):
        drawn = [
            element(
                "td",
                element(
                    "span",
                    cell.sign,
                    class_=f"cell {cell.kind}",
                    tabindex="0" if x == y == 0 else "-1",
                    title=cell.reason,
                    role="img",
                ),
            )
            for x, cell in enumerate(cells)
        ]
        body.append(element("tr", element("th", name, scope="row", title=name), *drawn))
    map_ = element(
        "table",
        element("thead", element("tr", *head)),
        element("tbody", *body),
        class_="heat",
        data_told=told,
        aria_label=label,
    )
    hint = (
        "Point at a cell, or reach one with Tab and walk with the arrow keys: its reason is here."
    )
    return join(
        element("div", map_, class_="scroll"),
        element("p", hint, id=told, class_="told", aria_live="polite"),
    )
