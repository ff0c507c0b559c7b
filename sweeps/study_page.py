"""The report of a four-way study: privacy, an attack and fairness, each on and off."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import write_atomic
from reporting.charts import Point, Row, Shape, figure, key, legend, room, rows, table
from reporting.opening import tile
from reporting.page import Html, document, element, join
from reporting.words import known, percent, points
from sweeps.fourway import HEAD
from sweeps.fourway import rows as table_rows

STUDY = "fourway.json"
NAME = "report.html"
Cell = Mapping[str, Any]
MARKS: tuple[tuple[str, str, int, Shape], ...] = (
    ("mean_partner_accuracy", "mean of partners", 1, "circle"),
    ("worst_partner_accuracy", "worst partner", 2, "triangle"),
    ("worst_group_accuracy", "worst group", 3, "square"),
)


def write_study_report(directory: Path) -> Path:
    """Write `report.html` into the folder of a four-way study.

    Args:
        directory: The folder of the study.

    Returns:
        The path of the page.

    Raises:
        UserError: `fourway.json` cannot be read, or no cell is finished.
    """
    try:
        study = json.loads((directory / STUDY).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{directory / STUDY}: cannot be read ({type(error).__name__})") from error
    path = directory / NAME
    write_atomic(path, study_report(study))
    return path


def study_report(study: Mapping[str, Any]) -> str:
    """The page as HTML.

    Args:
        study: The content of `fourway.json` (docs/four-way.md).

    Raises:
        UserError: No cell is finished.
    """
    cells = {cell["name"]: cell for cell in study["cells"] if cell["runs"]}
    if not cells:
        raise UserError(f"{STUDY}: no cell is finished; the same command continues the study")
    parts = [
        ("accuracy", "Accuracy of partners and groups", join(*_accuracies(study, cells))),
        ("attack", "Accuracy lost to the attack", join(*_single(study, cells, "attack_loss"))),
        ("gap", "The gap between groups", join(*_single(study, cells, "gap"))),
        ("figures", "All figures", join(*_figures(study))),
        ("setting", "Switched settings", join(*_setting(study))),
    ]
    return document(
        "fedaccord report: privacy, attack and fairness",
        _opening(study, cells),
        parts,
        f"Made by fedaccord {version('fedaccord')} from {STUDY}. This page loads nothing from "
        "the network.",
    )


def _opening(study: Mapping[str, Any], cells: Mapping[str, Cell]) -> Html:
    seeds = len(study["seeds"])
    attackers = ", ".join(study["attackers"]) or "nobody"
    missing = len(study["cells"]) - len(cells)
    return join(
        element("p", "fedaccord · four-way study", class_="over"),
        element("h1", "Privacy, an attack and fairness, on and off"),
        element(
            "p",
            f"One federation was trained {sum(len(c['runs']) for c in cells.values())} times: with "
            "and without differential privacy, an attack and fair weights, over "
            f"{seeds} seed{'s' if seeds > 1 else ''}. All other settings are equal. Attackers: "
            f"{attackers}.",
            class_="lead",
        ),
        element("p", f"{missing} of 8 combinations are not finished.", class_="notice")
        if missing
        else None,
        element(
            "dl",
            tile("Nothing switched on", *_tile_of(cells.get("none"), "accuracy")),
            tile("Under privacy", *_tile_of(cells.get("dp"), "accuracy")),
            tile("Under attack", *_tile_of(cells.get("attack"), "accuracy")),
            tile("All three", *_tile_of(cells.get("dp-attack-fair"), "accuracy")),
            class_="tiles",
        ),
    )


def _tile_of(cell: Cell | None, name: str) -> tuple[str, str]:
    if cell is None or cell["mean"][name] is None:
        return "-", "Not measured."
    mean = cell["mean"]
    spent = f" ε = {mean['epsilon']:.2f}." if cell["dp"] and mean["epsilon"] is not None else ""
    return percent(mean[name]), (
        f"held-out accuracy. Worst partner {percent(mean['worst_partner_accuracy'])}, worst group "
        f"{percent(mean['worst_group_accuracy'])}, gap {points(mean['gap'])}.{spent}"
    )


def _name(cell: Cell) -> str:
    return " + ".join(word for word in ("dp", "fair", "attack") if cell[word]) or "none"


def _points_of(cell: Cell, name: str, tone: int, shape: Shape, words: str) -> list[Point]:
    mean, std = cell["mean"][name], cell["std"][name]
    if mean is None:
        return []
    around = None if std is None else (mean - std, mean + std)
    return [Point(mean, around, tone, shape, f"{words}: {percent(mean)}")]


def _ends(items: Sequence[Row]) -> list[float]:
    points_ = [point for item in items for point in item.points]
    return [end for p in points_ for end in (p.value, *(known(p.interval or (None, None)) or ()))]


def _accuracies(study: Mapping[str, Any], cells: Mapping[str, Cell]) -> list[Html]:
    items = [
        Row(
            _name(cell),
            [
                p
                for name, words, tone, shape in MARKS
                for p in _points_of(cell, name, tone, shape, words)
            ],
            percent(cell["mean"]["worst_partner_accuracy"]),
        )
        for cell in cells.values()
    ]
    keys = [key(words, tone, shape) for _, words, tone, shape in MARKS]
    drawing = join(
        legend(keys),
        rows(
            items,
            room(_ends(items), 0.1, 0.0, 1.0),
            "Accuracies in every combination",
            show=lambda v: f"{100 * v:.3g} %",
        ),
    )
    alternative = table(
        ["combination", *(words for _, words, _, _ in MARKS)],
        [[_name(c), *(percent(c["mean"][n]) for n, *_ in MARKS)] for c in cells.values()],
        "Accuracies",
    )
    text = (
        "Means over seeds; whiskers show one standard deviation if there are several seeds. The "
        "number at the end of a row is the worst partner's accuracy. Attackers are left out."
    )
    return [figure("Accuracy of partners and groups", text, drawing, alternative)]


TEXTS = {
    "attack_loss": (
        "Accuracy lost to the attack",
        "Held-out accuracy without the attack minus accuracy with it, in percentage points.",
    ),
    "gap": (
        "Gap between groups",
        "The largest equalised-odds difference of all group columns, in percentage points.",
    ),
}


def _single(study: Mapping[str, Any], cells: Mapping[str, Cell], name: str) -> list[Html]:
    title, text = TEXTS[name]
    items = [
        Row(
            _name(cell),
            _points_of(cell, name, 4, "diamond", _name(cell)),
            points(cell["mean"][name]),
        )
        for cell in cells.values()
        if cell["mean"][name] is not None
    ]
    if not items:
        return [element("p", "No finished combination has this figure.")]
    drawing = rows(
        items, room([0.0, *_ends(items)], 0.1, -1.0, 1.0), title, show=lambda v: f"{100 * v:.3g}"
    )
    alternative = table(["combination", "points"], [[r.name, r.shown] for r in items], title)
    return [figure(title, text, drawing, alternative)]


def _figures(study: Mapping[str, Any]) -> list[Html]:
    lines = [
        [
            " + ".join(
                n for n, on in zip(("dp", "fair", "attack"), row[:3], strict=True) if on == "on"
            )
            or "none",
            *row[3:],
        ]
        for row in table_rows(study)
    ]
    return [
        element(
            "p",
            "Accuracies, gaps and losses in percentage points, ± the standard deviation over "
            "seeds. Without privacy ε is ∞: there is no guarantee.",
        ),
        table(["combination", *HEAD[3:]], lines, "Every combination"),
    ]


def _setting(study: Mapping[str, Any]) -> list[Html]:
    lines = [
        [name, element("code", " ".join(s["on"])), element("code", " ".join(s["off"]))]
        for name, s in study["switches"].items()
    ]
    base = " ".join(study["base"]) or "defaults"
    return [
        table(["switch", "on", "off"], lines, "Switches"),
        element("p", "Base configuration: ", element("code", base), "."),
        element(
            "p",
            f"Seeds: {', '.join(map(str, study['seeds']))}. The report of each run is "
            "seed-N/COMBINATION/report.html.",
        ),
    ]
