"""What rows add up to: pure functions of rows that are made here."""

from __future__ import annotations

from typing import Any

import pytest

from client.accounting import Segment, epsilon
from client.ledger import (
    Entry,
    composed_with,
    compositions,
    is_planned,
    reservations,
    spent,
    total,
)

DELTA = 1e-5
STEPS, OTHER, COUNT = Segment(1.0, 0.05, 4), Segment(2.0, 0.05, 4), Segment(30.0, 1.0, 1)
NOISY, NOISIER = Segment(5.0, 1.0, 1), Segment(9.0, 1.0, 2)


def row(run: str, part: str | None, *segments: Segment, kind: str = "reserve") -> Entry:
    """A row whose release is named after its run and first segment."""
    body: dict[str, Any] = {
        "kind": kind,
        "run": run,
        "release": f"{run}/{part}/{segments}",
        "segments": [[s.noise_multiplier, s.sample_rate, s.steps] for s in segments],
    }
    return Entry(0, body if part is None else {**body, "part": part}, "")


def value(*segments: Segment) -> float:
    return epsilon(segments, DELTA).value


TWO_SIDES = [
    row("a", "x/train", STEPS),
    row("a", "x/validation", NOISY),
    row("b", "x/train", OTHER),
    row("b", "x/train", COUNT, kind="refuse"),
    row("a", "", COUNT),
]


def test_spent_lists_reserved_segments_alone() -> None:
    assert spent(TWO_SIDES) == [STEPS, NOISY, OTHER, COUNT]
    assert spent(TWO_SIDES, "a") == [STEPS, NOISY, COUNT]
    assert spent(TWO_SIDES, other_than="a") == [OTHER]
    assert spent(TWO_SIDES, "a", other_than="a") == []


def test_sides_of_one_division_compose_apart_and_rows_without_a_side_with_both() -> None:
    assert compositions(TWO_SIDES) == {
        "x/train": [COUNT, STEPS, OTHER],
        "x/validation": [COUNT, NOISY],
    }
    assert compositions(TWO_SIDES, "b") == {"x/train": [OTHER]}
    assert compositions(TWO_SIDES, other_than="b") == {
        "x/train": [COUNT, STEPS],
        "x/validation": [COUNT, NOISY],
    }
    assert compositions([row("a", None, STEPS)]) == compositions([row("a", "", STEPS)])
    assert compositions([row("a", "", STEPS)]) == {"": [STEPS]}
    assert compositions([]) == {"": []}


def test_several_divisions_compose_as_if_they_touched_the_same_records() -> None:
    rows = [*TWO_SIDES[:2], row("b", "y/train", OTHER)]
    assert compositions(rows) == {"": [STEPS, NOISY, OTHER]}
    assert compositions(rows, "a") == {"x/train": [STEPS], "x/validation": [NOISY]}
    for part in ("x/train", "x/validation", "y/train", "z/train", ""):
        assert composed_with(rows, part) == [STEPS, NOISY, OTHER]


def test_a_spend_composes_with_what_touches_the_same_records() -> None:
    assert composed_with(TWO_SIDES, "x/train") == [STEPS, OTHER, COUNT]
    assert composed_with(TWO_SIDES, "x/validation") == [NOISY, COUNT]
    assert composed_with(TWO_SIDES, "x/train", other_than="a") == [OTHER]
    # A spend on all records, or by another division, composes with everything.
    assert (
        composed_with(TWO_SIDES, "")
        == composed_with(TWO_SIDES, "y/train")
        == [STEPS, NOISY, OTHER, COUNT]
    )
    assert composed_with([], "x/train") == []
    assert composed_with([row("a", None, STEPS)], "x/train") == [STEPS]


@pytest.mark.parametrize(
    ("rows", "run", "part", "new", "wanted"),
    [
        # One mechanism of one run, with at most one release of a count beside it.
        ([], "a", "x/train", [STEPS], True),
        ([("a", "x/train", STEPS)], "a", "x/train", [STEPS], True),
        ([("a", "x/train", COUNT)], "a", "x/train", [STEPS], True),
        ([("a", "x/train", COUNT), ("a", "x/train", STEPS)], "a", "x/train", [STEPS], True),
        ([("a", "x/train", COUNT), ("a", "x/train", COUNT)], "a", "x/train", [STEPS], False),
        ([("a", "x/train", COUNT), ("a", "x/train", OTHER)], "a", "x/train", [STEPS], False),
        ([("a", "x/train", OTHER)], "a", "x/train", [STEPS], False),
        ([("a", "x/train", COUNT)], "a", "x/train", [NOISY], True),
        ([("a", "x/train", COUNT)], "a", "x/train", [NOISIER], True),
        ([("a", "x/train", NOISIER)], "a", "x/train", [STEPS], False),
        ([("a", "x/train", Segment(1.0, 0.05, 1))], "a", "x/train", [OTHER], False),
        # Noise that was solved again may differ in its last digits.
        ([("a", "x/train", Segment(1.0000000001, 0.05, 4))], "a", "x/train", [STEPS], True),
        ([("a", "x/train", Segment(1.0001, 0.05, 4))], "a", "x/train", [STEPS], False),
        ([("a", "x/train", Segment(1.0, 0.06, 4))], "a", "x/train", [STEPS], False),
        # Another run on the same records, or one on the other side.
        ([("b", "x/train", STEPS)], "a", "x/train", [STEPS], False),
        ([("b", "x/validation", STEPS)], "a", "x/train", [STEPS], True),
        ([("b", "", STEPS)], "a", "x/train", [STEPS], False),
        # Noisy metrics of any number of runs, on validation records of one division.
        ([("b", "x/validation", NOISY)], "a", "x/validation", [NOISIER], True),
        ([("b", "x/validation", STEPS)], "a", "x/validation", [NOISY], False),
        ([("b", "x/validation", NOISY)], "a", "x/validation", [STEPS], False),
        ([("b", "x/train", NOISY)], "a", "x/train", [NOISIER], False),
        ([("b", "y/validation", NOISY)], "a", "x/validation", [NOISIER], False),
        ([("b", "y/validation", NOISY)], "b", "x/validation", [NOISY], True),
    ],
)
def test_what_counts_as_one_plan(
    rows: list[tuple[str, str, Segment]],
    run: str,
    part: str,
    new: list[Segment],
    wanted: bool,
) -> None:
    refused = row("c", "z/train", OTHER, kind="refuse")
    assert is_planned([refused, *(row(*one) for one in rows)], run, part, new) is wanted


def test_total_is_the_larger_side() -> None:
    assert total(TWO_SIDES, DELTA).value == value(STEPS, OTHER, COUNT)
    assert total(TWO_SIDES, DELTA, "a").value == value(STEPS, COUNT)
    assert total(TWO_SIDES, DELTA, side="validation").value == value(NOISY, COUNT)
    assert total(TWO_SIDES, DELTA, "b", side="validation").value == 0.0
    assert total([row("a", "", STEPS)], DELTA, side="train").value == value(STEPS)
    rows = [*TWO_SIDES[:2], row("b", "y/train", OTHER)]
    assert total(rows, DELTA, side="train").value == value(STEPS, NOISY, OTHER)


def test_reservations_say_which_were_confirmed() -> None:
    first, second = TWO_SIDES[0], TWO_SIDES[1]
    confirmed = Entry(2, {"kind": "commit", "release": second.body["release"]}, "")
    assert reservations([first, second, confirmed]) == [(first, False), (second, True)]
