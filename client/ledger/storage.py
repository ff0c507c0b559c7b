"""Durable appending to the SQLite file.

Durability: a rollback journal with ``synchronous=EXTRA``, which is emptied and flushed at a commit
(never removed, which costs a flush of the folder), so that a commit survives a power cut as well as
``kill -9``.  Every append reads and verifies the whole chain under SQLite's write lock: a damaged
ledger stops the partner, and concurrent processes can neither fork the chain nor overspend
together.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from client.ledger.chain import SCHEMA, examine
from client.ledger.entries import LEDGER_VERSION, Entry, LedgerError, parse
from client.ledger.head import head_path, head_text, stored_head
from common.files import canonical_json, sha256_text, write_atomic

BUSY_SECONDS = 60.0
# Appends one row of a kind, with a content, and returns its number.
Append = Callable[[str, Mapping[str, Any]], int]


class Storage:
    """The open file of one ledger; raises LedgerError where it cannot be read or written.

    One object belongs to one thread; any number of processes may have the same file open.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _create_private(path)
            self.connection = connect(path)
        except (OSError, sqlite3.Error) as failure:
            raise LedgerError(f"ledger {path} cannot be opened: {failure}") from failure

    def begin(self, dataset: str) -> None:
        """Write the genesis into an empty file, or check that the file is this data set's."""
        with self._transaction():
            is_new = not self.connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if is_new:
                if head_path(self.path).exists():
                    raise LedgerError(
                        f"ledger {self.path} has been removed or emptied while its head file "
                        "remains: put the ledger back from a backup"
                    )
                for statement in SCHEMA.values():
                    self.connection.execute(statement)
                genesis = {"dataset": dataset, "version": LEDGER_VERSION}
                self._insert(0, "", "genesis", genesis)
            entries = self._verified()
        owner = entries[0].body["dataset"]
        if owner != dataset:
            raise LedgerError(f"ledger {self.path} belongs to data set {owner!r}, not {dataset!r}")
        if stored_head(self.path) != head_text(len(entries), entries[-1].hash):
            self._store_head()

    def read(self) -> list[Entry]:
        """All rows, verified."""
        try:
            # One read transaction, so that head and rows belong together.
            self.connection.execute("BEGIN")
            try:
                return self._verified()
            finally:
                self.connection.execute("ROLLBACK")
        except sqlite3.Error as failure:
            raise LedgerError(f"ledger {self.path} cannot be read: {failure}") from failure

    @contextmanager
    def appending(self) -> Iterator[tuple[list[Entry], Append]]:
        """The verified rows and a function that appends one, all under the write lock."""
        added = False
        with self._transaction():
            entries = self._verified()

            def add(kind: str, body: Mapping[str, Any]) -> int:
                nonlocal added
                added = True
                return self._insert(len(entries), entries[-1].hash, kind, body)

            yield entries, add
        if added:
            self._store_head()

    def close(self) -> None:
        """Release the file."""
        self.connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.connection.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise
        except (sqlite3.Error, OSError) as failure:
            raise LedgerError(
                f"ledger {self.path} cannot be written ({failure}): nothing may be trained until "
                "it can"
            ) from failure

    def _store_head(self) -> None:
        """Bring the head file up to the last row.

        After the commit, never before it: a crash in between leaves the head behind, which is
        harmless and mended here, and never ahead, which would look like a cut tail.  Under the
        write lock, so that two processes cannot store their heads in the wrong order.
        """
        with self._transaction():
            count, last = self.connection.execute(
                "SELECT (SELECT count(*) FROM entries), hash FROM entries ORDER BY seq DESC LIMIT 1"
            ).fetchone()
            text = head_text(count, last)
            if stored_head(self.path) != text:
                write_atomic(head_path(self.path), text, mode=0o600)

    def _insert(self, seq: int, previous: str, kind: str, body: Mapping[str, Any]) -> int:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        text = canonical_json({**body, "kind": kind, "time": now})
        if parse(seq, text, "") is None:
            raise ValueError(f"not a row that a ledger could be read with again: {kind}")
        self.connection.execute(
            "INSERT INTO entries VALUES (?, ?, ?)", (seq, text, sha256_text(previous, text))
        )
        return seq

    def _verified(self) -> list[Entry]:
        entries, problems = examine(self.connection, head_path(self.path))
        if problems:
            raise LedgerError(
                f"ledger {self.path} is damaged: {problems[0]}; put it back from a backup"
            )
        return entries


def real_path(path: Path | str) -> Path:
    """The file itself where `path` is a link: its head file is in the same folder.

    Raises LedgerError when the path leads nowhere that a file could be.
    """
    try:
        return Path(path).resolve()
    except (OSError, ValueError, RuntimeError) as failure:
        raise LedgerError(f"ledger {path} cannot be opened: {failure}") from failure


def _create_private(path: Path) -> None:
    """Make an empty file of mode 0600 before SQLite would make one that others can read."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        path.chmod(0o600)


def connect(path: Path) -> sqlite3.Connection:
    """A connection to a ledger's file, which waits for locks of other processes."""
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    # A row that is not text must be reported by its hash, not end the check with an error.
    connection.text_factory = lambda data: data.decode(errors="replace")
    connection.execute("PRAGMA journal_mode=TRUNCATE")
    connection.execute("PRAGMA synchronous=EXTRA")
    return connection
