"""Whatever is changed in a ledger's files is found, and stops the partner."""

from __future__ import annotations

import json
import math
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from client.ledger import Ledger, LedgerError, chain, read, storage, verify
from common.files import canonical_json, sha256_text
from scripts import ledger as command
from tests.client.test_ledger import filled, reserve


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET body = '{}' WHERE seq = 1",
        "DELETE FROM entries WHERE seq = 3",
        "INSERT OR REPLACE INTO entries VALUES (1, '{}', '')",
        "INSERT INTO entries VALUES (99, '{}', '')",
    ],
)
def test_the_file_itself_refuses_anything_but_appending(tmp_path: Path, statement: str) -> None:
    connection = sqlite3.connect(filled(tmp_path / "notes.db"))
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(statement)
    connection.close()


Rows = list[list[Any]]


def tamper(path: Path, change: Callable[[Rows], Rows]) -> None:
    """Rewrite the rows as somebody would who first removes the guards and then restores them."""
    connection = sqlite3.connect(path)
    rows = [list(row) for row in connection.execute("SELECT * FROM entries ORDER BY seq")]
    connection.execute("DROP TABLE entries")
    connection.execute(chain.SCHEMA["entries"])
    connection.executemany("INSERT INTO entries VALUES (?, ?, ?)", change(rows))
    for name, statement in chain.SCHEMA.items():
        if name != "entries":
            connection.execute(statement)
    connection.commit()
    connection.close()


def edited(rows: Rows) -> Rows:
    rows[3][1] = rows[3][1].replace("[1.0,0.05,4]", "[9.0,0.05,4]")
    return rows


def deleted(rows: Rows) -> Rows:
    return rows[:3] + rows[4:]


def deleted_and_renumbered(rows: Rows) -> Rows:
    return [[seq, *row[1:]] for seq, row in enumerate(deleted(rows))]


def swapped(rows: Rows) -> Rows:
    rows[1][1:], rows[3][1:] = rows[3][1:], rows[1][1:]
    return rows


def inserted(rows: Rows) -> Rows:
    body = rows[1][1].replace('"r0"', '"r9"')
    rows.insert(2, [2, body, sha256_text(rows[1][2], body)])
    return [[seq, *row[1:]] for seq, row in enumerate(rows)]


def cut(rows: Rows) -> Rows:
    return rows[:-2]


def emptied(rows: Rows) -> Rows:
    return []


def first_removed(rows: Rows) -> Rows:
    return rows[1:]


def rechained(rows: Rows) -> Rows:
    previous = ""
    for row in rows:
        row[2] = previous = sha256_text(previous, row[1])
    return rows


def edited_and_rechained(rows: Rows) -> Rows:
    return rechained(edited(rows))


def renamed_and_rechained(rows: Rows) -> Rows:
    rows[0][1] = rows[0][1].replace("notes", "other")
    return rechained(rows)


def cut_and_regrown(rows: Rows) -> Rows:
    return rechained(cut(rows) + [[row[0], row[1].replace("r2", "r9"), ""] for row in rows[-2:]])


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (edited, "row 3 does not continue the chain"),
        (deleted, "a row is missing before row 4"),
        (deleted_and_renumbered, "row 3 does not continue the chain"),
        (swapped, "row 1 does not continue the chain"),
        (inserted, "row 3 does not continue the chain"),
        (cut, "the tail is cut off: 7 rows were written, 5 are left"),
        (emptied, "no genesis row"),
        (first_removed, "not a genesis row"),
        (edited_and_rechained, "is not the one that the head file"),
        (renamed_and_rechained, "is not the one that the head file"),
        (cut_and_regrown, "is not the one that the head file"),
    ],
)
def test_damage_is_found_and_stops_the_partner(
    tmp_path: Path, change: Callable[[Rows], Rows], found: str
) -> None:
    path = filled(tmp_path / "notes.db")
    with Ledger.open(path, "notes") as already_open:
        tamper(path, change)
        assert any(found in problem for problem in verify(path)), verify(path)
        with pytest.raises(LedgerError, match="damaged"):
            reserve(already_open, "r5")
    with pytest.raises(LedgerError, match="damaged"):
        Ledger.open(path, "notes")
    assert command.verify(path) == 1


def test_removed_guard_head_or_file_is_found(tmp_path: Path) -> None:
    path = filled(tmp_path / "notes.db")
    head = tmp_path / "notes.db.head"
    kept = head.read_text()
    connection = sqlite3.connect(path)
    connection.execute("DROP TRIGGER no_delete")
    connection.close()
    assert verify(path) == ["the guard 'no_delete' has been changed or removed"]

    connection = sqlite3.connect(path)
    connection.execute(chain.SCHEMA["no_delete"])
    connection.close()
    assert verify(path) == []
    head.unlink()
    assert verify(path) == ["the head file notes.db.head is missing"]
    head.write_text("?")
    assert verify(path) == ["the head file notes.db.head cannot be read"]
    head.write_text(kept)
    path.unlink()
    with pytest.raises(LedgerError, match="removed or emptied"):
        Ledger.open(path, "notes")


def test_an_old_copy_of_both_files_is_found_only_by_a_head_kept_elsewhere(tmp_path: Path) -> None:
    """The documented limit: a consistent older state cannot be told from the truth by itself."""
    path = filled(tmp_path / "notes.db", 2)
    backup = tmp_path / "old"
    backup.mkdir()
    for file in tmp_path.glob("notes.db*"):
        shutil.copy2(file, backup / file.name)
    with Ledger.open(path, "notes") as ledger:
        reserve(ledger, "r8")
        kept = ledger.head()
    for file in backup.iterdir():
        shutil.copy2(file, tmp_path / file.name)
    assert verify(path) == []
    with Ledger.open(path, "notes") as ledger:
        assert ledger.head() != kept


def rewritten(path: Path, change: Callable[[Rows], Rows]) -> None:
    """As somebody would who knows the chain, and can write the ledger and its head file."""
    changed: list[list[Any]] = []

    def whole(rows: Rows) -> Rows:
        changed[:] = rechained(change(rows))
        return changed

    tamper(path, whole)
    head = canonical_json({"rows": len(changed), "hash": changed[-1][2]})
    path.with_name("notes.db.head").write_text(head)


@pytest.mark.parametrize(
    ("row", "change"),
    [
        (1, {"segments": [[1.0, 0.05, math.inf]]}),
        (1, {"segments": [[1.0, 0.05, 10**400]]}),
        (1, {"segments": [["1.0", 0.05, 4]]}),
        (1, {"segments": None}),
        (1, {"delta": 0}),
        (1, {"delta": math.nan}),
        (1, {"cap": [8.0]}),
        (1, {"cap": [math.nan, 1e-5]}),
        (1, {"run": None}),
        (1, {"part": []}),
        (1, {"time": 1}),
        (1, {"kind": ["reserve"]}),
        (1, {"kind": "refuse"}),
        (1, {"nested": "DEEP"}),
        (0, {"dataset": ["notes"]}),
        (0, {"dataset": None}),
        (0, {"version": "1"}),
        (0, {"kind": "commit", "release": "r0", "reserved_as": 0}),
        (1, {"kind": "genesis", "dataset": "notes", "version": 1}),
        (1, {"kind": "something"}),
        (1, {"what": 3}),
        (1, {"release": 3}),
        (1, {"segments": [[1.0, 0.05]]}),
        (1, {"segments": [[-1.0, 0.05, 4]]}),
        (1, {"segments": [[1.0, 1.05, 4]]}),
        (1, {"segments": [[1.0, 0.05, 4.5]]}),
        (1, {"cap": [0.0, 1e-5]}),
        (1, {"kind": "refuse", "reason": 3}),
        (1, {"kind": "refuse", "reason": "x", "withheld": 1}),
        (2, {"release": 3}),
        (2, {"reserved_as": "1"}),
        (2, {"release": "another"}),
        (3, {"release": "r0"}),
    ],
)
def test_a_row_that_says_nonsense_is_named_whatever_its_hash(
    tmp_path: Path, row: int, change: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    path = filled(tmp_path / "notes.db")

    def nonsense(rows: Rows) -> Rows:
        body = canonical_json({**json.loads(rows[row][1]), **change})
        rows[row][1] = body.replace('"DEEP"', "[" * 50_000)
        return rows

    rewritten(path, nonsense)
    assert command.verify(path) == 1
    said = capsys.readouterr().out
    assert "Traceback" not in said
    assert "row" in said
    for use in (lambda: command.show(path), lambda: Ledger.open(path, "notes")):
        with pytest.raises(LedgerError, match="damaged"):
            use()


def test_a_trigger_that_swallows_rows_stops_the_partner(tmp_path: Path) -> None:
    path = filled(tmp_path / "notes.db")
    connection = sqlite3.connect(path)
    swallow = "CREATE TRIGGER x BEFORE INSERT ON entries BEGIN SELECT RAISE(IGNORE); END"
    with Ledger.open(path, "notes") as already_open:
        connection.execute(swallow)
        connection.close()
        with pytest.raises(LedgerError, match="'x' does not belong in a ledger"):
            reserve(already_open, "r9")


@pytest.mark.parametrize("content", [b"\xff\xfe", b'{"rows":1e999,"hash":""}', b"[" * 50_000, None])
def test_a_head_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = filled(tmp_path / "notes.db", 1)
    head = tmp_path / "notes.db.head"
    head.unlink()
    head.mkdir() if content is None else head.write_bytes(content)
    assert verify(path) == ["the head file notes.db.head cannot be read"]


def test_a_busy_ledger_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = filled(tmp_path / "notes.db", 1)
    monkeypatch.setattr(storage, "BUSY_SECONDS", 0.01)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(LedgerError, match="cannot be read now: database is locked"):
        verify(path)
    other.close()
    assert verify(path) == []


def test_bytes_that_are_no_text_a_link_and_a_path_too_long(tmp_path: Path) -> None:
    path = filled(tmp_path / "notes.db", 1)
    link = tmp_path / "link"
    link.symlink_to(path)
    with Ledger.open(link, "notes") as ledger:
        reserve(ledger, "r5")
    assert verify(link) == verify(path) == []

    def no_text(rows: Rows) -> Rows:
        return [*rows[:1], [1, b"\xff", rows[1][2]], *rows[2:]]

    tamper(path, no_text)
    assert "row 1 cannot be understood" in verify(path)
    with pytest.raises(LedgerError, match="too long"):
        verify("a" * 5000)


def test_a_refusal_is_a_row_like_others(tmp_path: Path) -> None:
    path = filled(tmp_path / "notes.db", 1)

    def refused(rows: Rows) -> Rows:
        for row, change in ((1, {"kind": "refuse", "reason": "x"}), (2, {})):
            rows[row][1] = canonical_json({**json.loads(rows[row][1]), **change})
        return rows[:2]

    rewritten(path, refused)
    assert verify(path) == []
    (entry,) = read(path)[1:]
    assert (entry.kind, entry.withheld) == ("refuse", False)


def test_rows_that_no_honest_ledger_appends_are_named_one_by_one(tmp_path: Path) -> None:
    path = filled(tmp_path / "notes.db", 2)

    def changed(rows: Rows) -> Rows:
        # Rows: genesis, reserve r0, commit r0, reserve r1, commit r1.
        for row, change in ((2, {"release": "r7"}), (3, {"release": "r0"}), (4, {"release": "r0"})):
            rows[row][1] = canonical_json({**json.loads(rows[row][1]), **change})
        return rows

    rewritten(path, changed)
    assert verify(path) == [
        "row 2 confirms a release that was not reserved",
        "row 3 reserves a release that was reserved before",
    ]


def test_another_version_is_named(tmp_path: Path) -> None:
    path = filled(tmp_path / "notes.db", 1)
    rewritten(path, lambda rows: [[0, rows[0][1].replace('"version":1', '"version":2'), ""]])
    assert verify(path) == ["version 2 is not 1"]


def test_a_second_genesis_is_named(tmp_path: Path) -> None:
    path = filled(tmp_path / "notes.db", 1)
    rewritten(path, lambda rows: [*rows, [3, rows[0][1], ""]])
    assert verify(path) == ["there is a second genesis row"]
    rewritten(path, lambda rows: [rows[0], [1, rows[0][1], ""]])
    assert verify(path) == ["there is a second genesis row"]


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (0, "row 0 is not the one that the head file notes.db.head names"),
        (-1, "row 0 is not the one that the head file notes.db.head names"),
        (1, ""),
        (2, ""),
        (3, ""),
        (4, "the tail is cut off: 4 rows were written, 3 are left"),
    ],
)
def test_a_head_file_may_be_behind_but_neither_ahead_nor_elsewhere(
    tmp_path: Path, rows: int, problem: str
) -> None:
    path = filled(tmp_path / "notes.db", 1)
    hashes = [entry.hash for entry in read(path)]
    last = hashes[rows - 1] if 0 < rows <= 3 else hashes[-1]
    (tmp_path / "notes.db.head").write_text(canonical_json({"rows": rows, "hash": last}))
    assert verify(path) == ([problem] if problem else [])
    if not problem:
        with Ledger.open(path, "notes"):
            # Opening brings it up to the last row.
            head = json.loads((tmp_path / "notes.db.head").read_text())
        assert head == {"rows": 3, "hash": hashes[-1]}


def test_between_the_genesis_and_its_first_head_nothing_is_missing(tmp_path: Path) -> None:
    path, head = tmp_path / "notes.db", tmp_path / "notes.db.head"
    Ledger.open(path, "notes").close()
    head.unlink()
    assert verify(path) == []
    with Ledger.open(path, "notes") as ledger:
        reserve(ledger, "r0")
    head.unlink()
    assert verify(path) == ["the head file notes.db.head is missing"]


def test_a_missing_row_is_named_once(tmp_path: Path) -> None:
    path = filled(tmp_path / "notes.db", 2)
    tamper(path, lambda rows: [row for row in rows if row[0] != 2])
    problems = [problem for problem in verify(path) if "missing" in problem]
    assert problems == ["a row is missing before row 3"]


def test_statistics_of_other_tools_are_no_damage(tmp_path: Path) -> None:
    path = filled(tmp_path / "notes.db", 1)
    connection = sqlite3.connect(path)
    connection.execute("ANALYZE")
    connection.close()
    assert verify(path) == []
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE other (x)")
    connection.close()
    assert verify(path) == ["'other' does not belong in a ledger"]
