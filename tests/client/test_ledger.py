from __future__ import annotations

import ctypes
import ctypes.util
import json
import math
import os
import shutil
import signal
import sqlite3
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import common.files
from client import lifetime
from client.accounting import Budget, Segment, epsilon
from client.ledger import (
    BudgetExceeded,
    Ledger,
    LedgerError,
    Spend,
    account,
    chain,
    entries,
    head,
    read,
    spends,
    storage,
    verify,
)
from common.errors import UserError
from common.files import canonical_json, sha256_text
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
        assert not any(character.isdigit() for character in refused.value.told)
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


# --- damage -------------------------------------------------------------------------------------


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
        with pytest.raises(LedgerError, match="'x' does not belong into a ledger"):
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


def test_nothing_is_appended_that_could_not_be_read_again(tmp_path: Path) -> None:
    path = filled(tmp_path / "notes.db", 1)
    with Ledger.open(path, "notes") as ledger:
        for delta in (math.nan, 0.0, 1.0):
            with pytest.raises(ValueError, match="not a row"):
                ledger.reserve(Spend("a", "r5", [ROUND], delta, "training"), Budget(8.0, DELTA))
    assert verify(path) == []


# --- several processes, full disk ---------------------------------------------------------------


def in_child(work: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return child


def test_processes_appending_at_once_neither_fork_the_chain_nor_overspend(tmp_path: Path) -> None:
    path, cap, processes, tries = tmp_path / "notes.db", Budget(3.0, 2 * DELTA), 4, 8

    def work(name: int) -> None:
        with Ledger.open(path, "notes") as ledger:
            for number in range(tries):
                try:
                    ledger.commit(reserve(ledger, f"{name}-{number}", cap))
                except BudgetExceeded:
                    continue

    children = [in_child(lambda name=name: work(name)) for name in range(processes)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * processes
    assert verify(path) == []
    kinds = [entry.kind for entry in read(path)]
    assert kinds.count("genesis") == 1
    assert kinds.count("reserve") == kinds.count("commit") > 0
    assert kinds.count("reserve") + kinds.count("refuse") == processes * tries
    spent = [ROUND] * kinds.count("reserve")
    assert epsilon(spent, DELTA).value <= 3.0 < epsilon([*spent, ROUND], DELTA).value


def test_full_disk_refuses_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    reserved: list[Segment] = []
    with Ledger.open(path, "notes") as ledger:
        pages = ledger._storage.connection.execute("PRAGMA page_count").fetchone()[0]
        ledger._storage.connection.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(LedgerError, match=r"cannot be written .*nothing may be trained"):
            reserve_until_refused(ledger, None, reserved)
        assert ledger.spent() == reserved
    assert len(reserved) > 3
    assert verify(path) == []
    with Ledger.open(path, "notes") as ledger:
        reserve(ledger, "after")
        assert ledger.spent() == [*reserved, ROUND]


# --- killed at every write ----------------------------------------------------------------------

TRACED = {
    str(module.__file__)
    for module in (account, chain, entries, head, spends, storage, common.files)
}
WRITERS = {
    *("open", "_create_private", "connect", "begin", "_transaction", "_store_head", "_insert"),
    *("reserve", "commit", "appending", "add", "write_atomic", "fsync_directory"),
}
# sqlite3_io_methods: an int, then pointers; these are the ones that change a file.
X_WRITE, X_TRUNCATE, X_SYNC = 3, 4, 5
METHODS_SIZE = 8 + 18 * 8
# sqlite3_vfs: three ints, pNext, zName, pAppData, xOpen, xDelete.
VFS_OPEN, VFS_DELETE = 40, 48


class Places:
    """Calls `reached` with 0, 1, 2, … wherever something may be half done in this process.

    Places are every line executed on the way of a write through the ledger and the atomic file
    writer, and, within SQLite, before every write, truncate, sync and delete of a file, and
    half-way through every write.
    """

    def __init__(self, reached: Callable[[int], None]) -> None:
        self.count = 0
        self.system_calls = 0
        self._reached = reached
        self._keep: list[Any] = []
        self._trace_sqlite()
        self._trace_lines()

    def place(self) -> None:
        self.count += 1
        self._reached(self.count - 1)

    def _trace_lines(self) -> None:
        def local(frame: FrameType, event: str, arg: object) -> Any:
            if event == "line":
                self.place()
            return local

        def enter(frame: FrameType, event: str, arg: object) -> Any:
            code = frame.f_code
            return local if code.co_filename in TRACED and code.co_name in WRITERS else None

        sys.settrace(enter)

    def _trace_sqlite(self) -> None:
        """Replace the file methods of SQLite's virtual file system in this process."""
        library = ctypes.CDLL(ctypes.util.find_library("sqlite3"))
        library.sqlite3_vfs_find.restype = ctypes.c_void_p
        vfs = library.sqlite3_vfs_find(None)
        pointer, integer, long = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
        opens = ctypes.CFUNCTYPE(integer, pointer, pointer, pointer, integer, pointer)
        deletes = ctypes.CFUNCTYPE(integer, pointer, pointer, integer)
        writes = ctypes.CFUNCTYPE(integer, pointer, pointer, integer, long)
        truncates = ctypes.CFUNCTYPE(integer, pointer, long)
        syncs = ctypes.CFUNCTYPE(integer, pointer, integer)

        def slot(address: int) -> Any:
            return ctypes.c_void_p.from_address(address)

        def patch(address: int, kind: Any, replace: Callable[[Any], Callable[..., int]]) -> None:
            function = kind(replace(kind(slot(address).value)))
            self._keep.append(function)
            slot(address).value = ctypes.cast(function, pointer).value

        def counted(original: Any) -> Callable[..., int]:
            def call(*arguments: Any) -> int:
                self.system_calls += 1
                self.place()
                return int(original(*arguments))

            return call

        def torn(original: Any) -> Callable[..., int]:
            def call(file: int, data: int, size: int, offset: int) -> int:
                self.system_calls += 1
                self.place()
                original(file, data, size // 2, offset)
                self.place()
                return int(original(file, data, size, offset))

            return call

        def opening(original: Any) -> Callable[..., int]:
            def call(vfs: int, name: int, file: int, flags: int, out: int) -> int:
                result = int(original(vfs, name, file, flags, out))
                if slot(file).value:
                    methods = ctypes.create_string_buffer(METHODS_SIZE)
                    ctypes.memmove(methods, slot(file).value, METHODS_SIZE)
                    self._keep.append(methods)
                    table = ctypes.addressof(methods)
                    patch(table + 8 * X_WRITE, writes, torn)
                    patch(table + 8 * X_TRUNCATE, truncates, counted)
                    patch(table + 8 * X_SYNC, syncs, counted)
                    slot(file).value = table
                return result

            return call

        patch(vfs + VFS_OPEN, opens, opening)
        patch(vfs + VFS_DELETE, deletes, counted)


class Releases:
    """How many releases were made: one byte each in a file, which outlives the process."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "released"
        self.file.touch()

    def announce(self) -> None:
        with self.file.open("ab", buffering=0) as file:
            file.write(b"x")

    @property
    def count(self) -> int:
        return self.file.stat().st_size


def two_rounds(folder: Path) -> None:
    """A partner's life: each release is announced after its reservation has returned."""
    released = Releases(folder)
    for release in ("r1", "r2"):
        with Ledger.open(folder / "notes.db", "notes") as ledger:
            reservation = reserve(ledger, release)
            released.announce()
            ledger.commit(reservation)


def on_disk(folder: Path) -> dict[str, tuple[int, bytes]]:
    """All that a killed process leaves: names, modes and contents of files."""
    return {f.name: (f.stat().st_mode, f.read_bytes()) for f in folder.iterdir()}


def places_that_differ(folder: Path) -> list[int]:
    """The first place of each stretch over which the files stay as they are.

    Nothing but the files outlives a killed process (its locks go with it), so to be killed at one
    place of a stretch is to be killed at any of it.
    """
    folder.mkdir()
    chosen: list[int] = []
    before: list[Any] = [None]

    def reached(at: int) -> None:
        now = on_disk(folder)
        if now != before[0]:
            chosen.append(at)
            before[0] = now

    def work() -> None:
        places = Places(reached)
        two_rounds(folder)
        sys.settrace(None)
        said = {"places": chosen, "all": places.count, "calls": places.system_calls}
        folder.with_suffix(".json").write_text(json.dumps(said))

    assert os.waitpid(in_child(work), 0)[1] == 0
    said = json.loads(folder.with_suffix(".json").read_text())
    assert said["calls"] > 50, "SQLite's file methods were not reached"
    assert said["all"] > 400, "the lines of the write path were not reached"
    return list(said["places"])


def killed_at(folder: Path, place: int) -> None:
    def reached(at: int) -> None:
        if at == place:
            os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        Places(reached)
        two_rounds(folder)

    folder.mkdir()
    status = os.waitpid(in_child(work), 0)[1]
    assert os.WIFSIGNALED(status), f"the child was not killed at {place}: status {status}"


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: a killed process leaves the same there, faster."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        yield Path(folder)


def test_killed_at_every_write_it_never_forgets_a_release(in_memory: Path) -> None:
    places = places_that_differ(in_memory / "whole")
    assert len(places) > 50
    for at in places:
        folder = in_memory / f"{at}"
        killed_at(folder, at)
        path, released = folder / "notes.db", Releases(folder).count
        # What is left must be whole as it lies, before anything opens and mends it.
        if path.exists() and path.stat().st_size > 0:
            problems = verify(path)
            assert problems in ([], ["it holds no entries at all"]), (at, problems)
        with Ledger.open(path, "notes") as ledger:
            spent = len(ledger.spent())
            assert released <= spent <= released + 1, at
            reserve(ledger, "afterwards")
            assert len(ledger.spent()) == spent + 1
        assert verify(path) == [], at


# --- the command --------------------------------------------------------------------------------


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
