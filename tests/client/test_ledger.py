from __future__ import annotations

import json
import math
import stat
from pathlib import Path
from typing import Any

import pytest

from client import lifetime
from client.accounting import Budget, Segment, epsilon
from client.ledger import (
    BudgetExceeded,
    Ledger,
    LedgerError,
    Spend,
    read,
    verify,
)
from common.errors import UserError
from scripts import ledger as command

DELTA = 1e-5
ROUND = Segment(1.0, 0.05, 4)


def reserve(ledger: Ledger, release: str, cap: Budget | None = None, run: str = "a") -> Any:
    return ledger.reserve(Spend(run, release, [ROUND], DELTA, "training"), cap)


def reserve_until_refused(ledger: Ledger, cap: Budget | None, granted: list[Segment]) -> None:
    while True:
        reserve(ledger, f"r{len(granted)}", cap)
        granted.append(ROUND)


def filled(path: Path, releases: int = 3) -> Path:
    with Ledger.open(path, "notes") as ledger:
        for number in range(releases):
            ledger.commit(reserve(ledger, f"r{number}"))
    return path


def test_spend_is_kept_over_reopening_and_over_runs(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    with Ledger.open(path, "notes") as ledger:
        ledger.commit(reserve(ledger, "r1", run="first"))
        reserve(ledger, "r2", run="first")
    with Ledger.open(path, "notes") as ledger:
        reserve(ledger, "r3", run="second")
        assert ledger.spent() == [ROUND] * 3
        assert ledger.spent("first") == [ROUND] * 2
        assert ledger.spent(other_than="first") == [ROUND]
        assert ledger.epsilon(DELTA) == epsilon([Segment(1.0, 0.05, 12)], DELTA).value
        assert ledger.epsilon(DELTA, run="second") == epsilon([ROUND], DELTA).value
    assert verify(path) == []


def test_planted_fault_an_account_that_starts_anew_is_caught(tmp_path: Path) -> None:
    """What a fresh accountant per message would claim is far below what the ledger says."""
    with Ledger.open(filled(tmp_path / "notes.db", 10), "notes") as ledger:
        assert ledger.epsilon(DELTA) > 1.5 * epsilon([ROUND], DELTA).value


def test_only_the_owner_can_read_the_files(tmp_path: Path) -> None:
    path = filled(tmp_path / "notes.db")
    for file in (path, tmp_path / "notes.db.head"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_same_release_counts_once_and_only_with_the_same_mechanism(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "notes.db", "notes") as ledger:
        first = reserve(ledger, "r1")
        again = reserve(ledger, "r1")
        assert (again.repeated, again.seq) == (True, first.seq)
        assert ledger.spent() == [ROUND]
        ledger.commit(again)
        ledger.commit(first)
        assert [e.kind for e in ledger.entries()] == ["genesis", "reserve", "commit"]
        with pytest.raises(LedgerError, match="another mechanism"):
            ledger.reserve(Spend("a", "r1", [Segment(2.0, 0.05, 4)], DELTA, "training"), None)
        with pytest.raises(LedgerError, match="another mechanism or run"):
            reserve(ledger, "r1", run="b")


def test_budget_is_never_exceeded_and_a_refusal_costs_nothing(tmp_path: Path) -> None:
    # One run may use half of the limit's delta.
    cap = Budget(2.5, 2 * DELTA)
    with Ledger.open(tmp_path / "notes.db", "notes") as ledger:
        granted: list[Segment] = []
        with pytest.raises(BudgetExceeded) as refused:
            reserve_until_refused(ledger, cap, granted)
        assert "'notes' exceeded: epsilon " in refused.value.detail
        assert not any(character.isdigit() for character in refused.value.sentence)
        assert len(granted) > 1
        assert ledger.spent() == granted
        assert ledger.epsilon(DELTA) <= 2.5
        assert epsilon([*granted, ROUND], DELTA).value > 2.5
        assert ledger.entries()[-1].kind == "refuse"
        with pytest.raises(BudgetExceeded) as refused:
            ledger.reserve(Spend("a", "x", [ROUND], 1e-3, "training"), cap)
        assert "delta 0.001 is above" in refused.value.detail
    assert verify(tmp_path / "notes.db") == []


def test_release_without_noise_leaves_nothing(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "notes.db", "notes") as ledger:
        ledger.reserve(Spend("a", "r1", [Segment(0.0, 1.0, 1)], DELTA, "exact metrics"), None)
        with pytest.raises(BudgetExceeded) as refused:
            reserve(ledger, "r2", Budget(8.0, DELTA))
        assert "epsilon inf of 8" in refused.value.detail


def test_commit_needs_a_reservation_of_this_ledger(tmp_path: Path) -> None:
    with (
        Ledger.open(tmp_path / "a.db", "a") as one,
        Ledger.open(tmp_path / "b.db", "b") as other,
        pytest.raises(LedgerError, match="no reservation"),
    ):
        other.commit(reserve(one, "r1"))


def test_another_data_set_is_refused(tmp_path: Path) -> None:
    path = filled(tmp_path / "notes.db")
    with pytest.raises(LedgerError, match="belongs to data set 'notes', not 'letters'"):
        Ledger.open(path, "letters")


def test_not_a_ledger(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    path.write_text("something else entirely, and long enough to be looked at" * 20)
    assert "cannot be read as a ledger" in verify(path)[0]
    with pytest.raises(LedgerError, match="cannot be opened"):
        Ledger.open(path, "notes")
    with pytest.raises(UserError, match="there is no ledger"):
        verify(tmp_path / "missing.db")


def test_nothing_is_appended_that_could_not_be_read_again(tmp_path: Path) -> None:
    path = filled(tmp_path / "notes.db", 1)
    with Ledger.open(path, "notes") as ledger:
        for delta in (math.nan, 0.0, 1.0):
            with pytest.raises(ValueError, match="not a row"):
                ledger.reserve(Spend("a", "r5", [ROUND], delta, "training"), Budget(8.0, DELTA))
    assert verify(path) == []


def test_show_says_what_is_spent_and_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "notes.db"
    cap = Budget(8.0, DELTA)
    with Ledger.open(path, "notes") as ledger:
        assert command.show(path) == 0
        assert "Nothing has been spent yet" in capsys.readouterr().out
        ledger.commit(reserve(ledger, "r1", cap, run="[first]"))
        reserve(ledger, "r2", cap, run="second")
        with pytest.raises(BudgetExceeded):
            ledger.reserve(Spend("second", "r3", [Segment(0.3, 0.5, 9)], DELTA, "training"), cap)
        spent = ledger.epsilon(DELTA)
    assert command.show(path) == 0
    out = capsys.readouterr().out
    assert f"Spent: epsilon {spent:.4g} at delta 1e-05" in out
    # Two runs: what counts against the limit is the filter's figure, above the composition's.
    counted = lifetime.counted([ROUND, ROUND], cap, planned=False)
    assert counted > spent
    assert f"Left: epsilon {8 - counted:.4g} of 8" in out
    assert "[first]" in out
    assert "1 spends were reserved and never confirmed" in out
    assert "1 requests were refused" in out
    assert command.verify(path) == 0
    assert "The ledger is whole: 5 rows" in capsys.readouterr().out


def test_a_runs_name_cannot_steer_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Ledger.open(tmp_path / "notes.db", "notes") as ledger:
        reserve(ledger, "r1", run="\x1b[2J")
    assert command.show(tmp_path / "notes.db") == 0
    out = capsys.readouterr().out
    assert r"\x1b[2J" in out
    assert "\x1b" not in out


# --- what rows say ------------------------------------------------------------------------------


def test_releases_of_a_run_on_a_part_are_counted_but_for_one(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "notes.db", "notes") as ledger:
        for run, release, part in (
            ("a", "1", "x/train"),
            ("a", "2", "x/train"),
            ("a", "3", "x/validation"),
            ("b", "4", "x/train"),
        ):
            ledger.commit(ledger.reserve(Spend(run, release, [ROUND], DELTA, "", part), None))
        ledger.note_withheld("a", "metrics", DELTA, "x/train", "too much noise")
        assert ledger.releases("a", "x/train", other_than="none of them") == 2
        assert ledger.releases("a", "x/train", other_than="2") == 1
        assert ledger.composed_with("x/train", other_than="b") == [ROUND, ROUND]
        assert ledger.planned("a", "x/train") is False
        assert ledger.planned("a", "y/train") is False
        assert ledger.planned("c", "") is False


def test_one_run_is_planned(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "notes.db", "notes") as ledger:
        ledger.reserve(Spend("a", "1", [ROUND], DELTA, "", "x/train"), None)
        assert ledger.planned("a", "x/train") is True


def test_what_was_withheld_is_noted_once_for_each_run_part_and_reason(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "notes.db", "notes") as ledger:
        with pytest.raises(BudgetExceeded):
            ledger.reserve(Spend("a", "r", [ROUND], DELTA, "", "p"), Budget(0.01, 2 * DELTA))
        noted = [("a", "p", "x"), ("b", "p", "x"), ("a", "q", "x"), ("a", "p", "y")]
        for run, part, reason in noted:
            for _ in range(2):
                ledger.note_withheld(run, "metrics", DELTA, part, reason)
        rows = ledger.entries()[2:]
    assert [(row.body["run"], row.body["part"], row.body["reason"]) for row in rows] == noted
    assert all(row.withheld and row.kind == "refuse" and row.segments == [] for row in rows)


@pytest.mark.parametrize("withhold", [False, True])
def test_a_refusal_says_whether_the_message_went_on(tmp_path: Path, withhold: bool) -> None:
    with Ledger.open(tmp_path / "notes.db", "notes") as ledger:
        with pytest.raises(BudgetExceeded):
            ledger.reserve(
                Spend("a", "r", [ROUND], DELTA, "", "p"), Budget(0.01, 2 * DELTA), withhold=withhold
            )
        (row,) = ledger.entries()[1:]
    assert (row.kind, row.withheld) == ("refuse", withhold)
    assert row.body["cap"] == [0.01, 2 * DELTA]
    assert row.body["reason"].startswith("budget of data set 'notes' exceeded: epsilon 0 of 0.01")


def test_a_delta_as_large_as_the_limits_is_allowed(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "notes.db", "notes") as ledger:
        assert reserve(ledger, "r", Budget(50.0, DELTA)).seq == 1


def test_the_head_is_the_number_of_rows_and_the_last_hash(tmp_path: Path) -> None:
    path = filled(tmp_path / "notes.db", 2)
    stored = json.loads((tmp_path / "notes.db.head").read_text())
    with Ledger.open(path, "notes") as ledger:
        assert ledger.head() == (5, ledger.entries()[-1].hash) == (5, stored["hash"])
    assert stored["rows"] == 5
    entry = read(path)[1]
    assert (entry.seq, entry.kind, entry.withheld, entry.exact) == (1, "reserve", False, False)


def test_only_a_release_without_noise_is_exact(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "notes.db", "notes") as ledger:
        ledger.reserve(Spend("a", "r", [ROUND, Segment(0.0, 1.0, 1)], DELTA, ""), None)
        assert [entry.exact for entry in ledger.entries()[1:]] == [True]


def test_a_ledger_needs_a_name_and_keeps_others_from_reading_it(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="needs the name"):
        Ledger.open(tmp_path / "notes.db", "")
    path = tmp_path / "deep" / "er" / "notes.db"
    with Ledger.open(path, "notes"):
        path.chmod(0o644)
    with Ledger.open(path, "notes"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
