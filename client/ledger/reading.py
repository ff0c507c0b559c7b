"""A ledger looked at without writing to it: by its owner, by a command, by an audit."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from client.ledger.chain import examine
from client.ledger.entries import Entry, LedgerError
from client.ledger.head import head_path
from client.ledger.storage import connect, real_path


def read(path: Path | str) -> list[Entry]:
    """The verified rows of a ledger, without writing to it.

    Raises:
        LedgerError: if there is no such file or it is damaged.
    """
    entries, problems = _inspect(real_path(path))
    if problems:
        raise LedgerError(f"ledger {path} is damaged: {problems[0]}")
    return entries


def verify(path: Path | str) -> list[str]:
    """Every problem found, in words; an empty list means that the ledger is whole.

    Finds changed, removed, inserted and reordered rows, a cut tail, a wrong genesis and missing
    triggers.  A whole history that was replaced together with its head file cannot be found here:
    compare :meth:`Ledger.head` with a copy kept elsewhere.

    Raises:
        LedgerError: if there is no such file.
    """
    return _inspect(real_path(path))[1]


def _inspect(path: Path) -> tuple[list[Entry], list[str]]:
    try:
        if not path.is_file():
            raise LedgerError(f"there is no ledger {path}")
        # Opened for writing, because a journal that a crash has left must be rolled back first.
        connection = connect(path)
        try:
            connection.execute("BEGIN")
            return examine(connection, head_path(path))
        finally:
            connection.close()
    except (OSError, sqlite3.OperationalError) as failure:
        raise LedgerError(f"ledger {path} cannot be read now: {failure}") from failure
    except sqlite3.DatabaseError as failure:
        return [], [f"the file cannot be read as a ledger: {failure}"]
