"""The heat map of decisions: partners down, rounds across."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from reporting.charts import figure, legend, table
from reporting.heat_map import HeatCell, heat_map
from reporting.page import Html, element, join

# From the least serious to the most: where rounds are drawn together, the most serious shows.
SIGNS = {
    "merged": "·",
    "clipped": "c",
    "readmitted": "+",
    "down-weighted": "↓",
    "missing": "?",
    "dropped": "x",
    "refused": "R",
}
MEANING = {
    "merged": "merged as it came",
    "clipped": "merged, its length cut",
    "readmitted": "dropped, then readmitted on appeal",
    "down-weighted": "merged at less than half the weight asked",
    "missing": "no reply in time",
    "dropped": "left out by the robust rule, or in a round that merged nothing",
    "refused": "refused before merging, or by the partner",
}
RANK = {name: place for place, name in enumerate(SIGNS)}
MOST_ROWS, MOST_COLUMNS, MOST_LINES = 60, 60, 400
Decision = Mapping[str, Any]


def decisions_section(decisions: Sequence[Decision], everyone: Sequence[str]) -> list[Html]:
    """What happened to every partner's update in every round, and why."""
    if not decisions:
        return [element("p", "No round was run.")]
    rounds = sorted({d["round"] for d in decisions})
    by_partner: dict[str, dict[int, Decision]] = {name: {} for name in sorted(everyone)}
    for d in decisions:
        by_partner.setdefault(d["partner"], {})[d["round"]] = d
    counts = Counter(d["outcome"] for d in decisions)
    shown, left = _rows(by_partner)
    bins = _bins(rounds)
    lines = [(name, [_cell(name, by_partner[name], bin_) for bin_ in bins]) for name in shown]
    names = [str(b[0]) if len(b) == 1 else f"{b[0]}–{b[-1]}" for b in bins]  # noqa: RUF001
    keys = [
        (
            f"{outcome}: {MEANING[outcome]} ({counts[outcome]})",
            element("span", SIGNS[outcome], class_=f"cell {outcome}", aria_hidden="true"),
        )
        for outcome in SIGNS
        if counts[outcome]
    ]
    notes = []
    if left:
        notes.append(
            f"{left} partners are left out of the picture; the most serious outcomes are first. "
        )
    if len(bins) < len(rounds):
        notes.append("A column stands for several rounds and shows the most serious outcome. ")
    drawing = join(
        legend(keys), heat_map(names, lines, "decisions-map", "Decisions by partner and round")
    )
    text = f"{''.join(notes)}An empty place: the partner was not asked in that round."
    return [
        element("p", _summary(counts, len(rounds))),
        figure(
            "Decisions by partner and round",
            text,
            drawing,
            join(_counts(by_partner), _reasons(decisions)),
            "The same as tables, with every reason",
        ),
    ]


def _summary(counts: Counter[str], rounds: int) -> str:
    total = sum(counts.values())
    other = [
        f"{counts[name]} {name}" for name in reversed(SIGNS) if counts[name] and name != "merged"
    ]
    said = ", ".join(other) or "nothing else happened"
    return (
        f"{total} updates were asked for in {rounds} rounds: {counts['merged']} were merged as "
        f"they came; {said}."
    )


def _rows(by_partner: Mapping[str, Mapping[int, Decision]]) -> tuple[list[str], int]:
    """The partners to draw, and how many are left out (those with the least to say).

    By name; where not all are drawn, those with the most serious outcomes come first.
    """
    names = list(by_partner)
    if len(names) <= MOST_ROWS:
        return names, 0
    weight = {n: sum(RANK[d["outcome"]] for d in by_partner[n].values()) for n in names}
    kept = sorted(names, key=lambda n: -weight[n])[:MOST_ROWS]
    return kept, len(names) - MOST_ROWS


def _bins(rounds: Sequence[int]) -> list[list[int]]:
    size = -(-len(rounds) // MOST_COLUMNS)
    return [list(rounds[i : i + size]) for i in range(0, len(rounds), size)]


def _cell(name: str, own: Mapping[int, Decision], rounds: Sequence[int]) -> HeatCell:
    found = [own[number] for number in rounds if number in own]
    if not found:
        return HeatCell("absent", "", f"{name}, round {rounds[0]}: not asked")
    worst = max(found, key=lambda d: RANK[d["outcome"]])
    outcome = worst["outcome"]
    text = f"{name}, round {worst['round']}, {outcome}. {worst['reason']}"
    if outcome == "readmitted" or worst.get("appeal"):
        text += _appeal(worst["appeal"])
    return HeatCell(outcome, SIGNS[outcome], text)


def _appeal(appeal: Mapping[str, Any] | None) -> str:
    if not appeal or "loss_with" not in appeal:
        return ""
    return (
        f" Appeal: loss {appeal['loss_without']:.4g} without it, {appeal['loss_with']:.4g} with it."
    )


def _counts(by_partner: Mapping[str, Mapping[int, Decision]]) -> Html:
    occurring = [
        o for o in SIGNS if any(d["outcome"] == o for p in by_partner.values() for d in p.values())
    ]
    lines = []
    for name, own in by_partner.items():
        counts = Counter(d["outcome"] for d in own.values())
        lines.append([name, *(str(counts[o]) for o in occurring)])
    return table(["partner", *occurring], lines, "Rounds by outcome")


def _reasons(decisions: Sequence[Decision]) -> Html:
    """Everything that was not a plain merge, in the order it happened."""
    told = [d for d in decisions if d["outcome"] != "merged"]
    if not told:
        return element("p", "Every update was merged as it came.", class_="note")
    lines = [[d["partner"], str(d["round"]), d["outcome"], d["reason"]] for d in told[:MOST_LINES]]
    more = (
        element("p", f"{len(told) - MOST_LINES} more stand in decisions.jsonl.", class_="note")
        if len(told) > MOST_LINES
        else None
    )
    return join(table(["partner", "round", "outcome", "reason"], lines, "Reasons"), more)
