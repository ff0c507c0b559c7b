"""Several processes, a full disk, and death at any moment: no release is ever forgotten."""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import common.files
from client.accounting import Budget, Segment, epsilon
from client.ledger import (
    BudgetExceeded,
    Ledger,
    LedgerError,
    account,
    chain,
    entries,
    head,
    read,
    spends,
    storage,
    verify,
)
from tests.client.test_ledger import DELTA, ROUND, reserve, reserve_until_refused


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
            assert problems in ([], ["it has no table of entries"]), (at, problems)
        with Ledger.open(path, "notes") as ledger:
            spent = len(ledger.spent())
            assert released <= spent <= released + 1, at
            reserve(ledger, "afterwards")
            assert len(ledger.spent()) == spent + 1
        assert verify(path) == [], at
