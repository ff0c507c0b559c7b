"""Groups and the gaps between them, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.groups import group_key
from reporting.charts import Point, Row, figure, room, rows, table
from reporting.figures import gap_names
from reporting.page import Html, element
from reporting.source import Run
from reporting.words import count, decimal, interval, known, percent, points

MOST_ROWS = 60


def fairness_section(run: Run) -> list[Html]:
    """Every group column: its groups, small ones flagged, and its gaps."""
    fairness = run.final["fairness"]
    if not fairness["groups"]:
        return [
            element(
                "p",
                "No group column was named (data.columns.groups), so nothing can be said about "
                "groups.",
            )
        ]
    data = run.final["data"]
    found = [
        element(
            "p",
            f"Measured on {count(data['measured_rows'], data['measured_rows_error'])} texts. "
            "Whiskers and brackets are 95 % "
            f"intervals for which texts happened to be measured. A group of fewer than "
            f"{fairness['minimum_rows']} texts is marked small, and enters no ranking and no gap.",
        )
    ]
    for column, groups in fairness["groups"].items():
        found += _column(column, groups, run.final["groups"], gap_names(run.config))
    return found


def _column(
    column: str,
    groups: Mapping[str, Any],
    errors: Mapping[str, Mapping[str, float]],
    names_of_gaps: Mapping[str, str],
) -> list[Html]:
    values = groups["values"]
    names = sorted(values, key=lambda v: (values[v]["small"], values[v]["accuracy"] or 0.0))
    ends = [
        end for name in names[:MOST_ROWS] for end in known(values[name]["accuracy_interval"]) or ()
    ]
    items = []
    for name in names[:MOST_ROWS]:
        row = values[name]
        note = f"{row['n']:,.0f} texts"
        if row["small"]:
            note += ", small: not ranked"
        elif name == groups["worst"]:
            note += ", the lowest"
        shown = percent(row["accuracy"], row["accuracy_error"])
        items.append(Row(name, _group_points(row), shown, note))
    alternative = table(
        [column, "texts", "accuracy", "95 % interval", "TPR", "FPR", "note"],
        [
            [
                name,
                count(values[name]["n"], errors[group_key(column, name)]["n_error"]),
                percent(values[name]["accuracy"], values[name]["accuracy_error"]),
                interval(values[name]["accuracy_interval"]),
                percent(values[name]["tpr"], errors[group_key(column, name)]["tpr_error"]),
                percent(values[name]["fpr"], errors[group_key(column, name)]["fpr_error"]),
                "small" if values[name]["small"] else "",
            ]
            for name in names
        ],
        f"Groups of {column}",
    )
    more = f" The {MOST_ROWS} lowest of {len(names)}." if len(names) > MOST_ROWS else ""
    drawing = rows(
        items,
        room(ends, 0.1, 0.0, 1.0),
        f"Accuracy by {column}",
        show=lambda v: f"{100 * v:.3g} %",
    )
    text = f"Filled marks: groups that are large enough to compare; hollow: small.{more}"
    return [
        element("h3", f"Groups of {column}"),
        figure(f"Accuracy by {column}", text, drawing, alternative),
        *_gaps(column, groups, names_of_gaps),
    ]


def _group_points(row: Mapping[str, Any]) -> list[Point]:
    if row["accuracy"] is None:
        return []
    ends = known(row["accuracy_interval"])
    if row["small"]:
        return [Point(row["accuracy"], ends, tone=5, shape="diamond", hollow=True)]
    return [Point(row["accuracy"], ends)]


def _gaps(column: str, groups: Mapping[str, Any], names_of_gaps: Mapping[str, str]) -> list[Html]:
    if not any(groups["gaps"].values()):
        return [element("p", "No two groups have enough texts to be compared.", class_="note")]
    items, lines_ = [], []
    for name, words in names_of_gaps.items():
        gap = groups["gaps"][name]
        if gap is None:
            items.append(Row(words, [], "-", "not enough texts"))
            lines_.append([words, "-", "-", "-"])
            continue
        pair = f"{gap['high']} over {gap['low']}"
        low, high = gap["interval"]
        items.append(
            Row(
                words,
                [Point(gap["value"], (low, high), 4, "square")],
                points(gap["value"], gap["error"]),
                pair,
            )
        )
        shown = points(gap["value"], gap["error"])
        lines_.append([words, shown, interval(gap["interval"]), pair])
    ends = [
        end
        for gap in groups["gaps"].values()
        if gap is not None
        for end in (*gap["interval"], gap["value"], 0.0)
    ]
    alternative = table(["gap", "points", "95 % interval", "between"], lines_, f"Gaps of {column}")
    drawing = rows(
        items,
        room(ends, 0.1, -1.0, 1.0),
        f"Gaps between groups of {column}",
        show=lambda v: f"{100 * v:.3g}",
    )
    distance = (
        f"Distance between the groups' predictions: mean absolute "
        f"{decimal(groups['prediction_absolute'])}, KL {decimal(groups['prediction_kl'])} nats."
    )
    text = (
        "The largest difference between two groups, in points of 100; none would be 0. The pair is "
        "chosen because it is far apart, so with many groups a gap leans to the large side."
    )
    return [
        figure(f"Gaps between groups of {column}", text, drawing, alternative),
        element("p", distance, class_="note"),
    ]
