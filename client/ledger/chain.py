"""Is a ledger whole?  Its tables and triggers, the chain of hashes, and the order of its rows.

Rows are ``(seq, body, hash)``: ``body`` is canonical JSON and ``hash`` is SHA-256 over the previous
row's hash and the body.  Row 0, the genesis, names the data set.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from client.ledger.entries import LEDGER_VERSION, Entry, parse
from client.ledger.head import head_problems
from common.files import sha256_text

SCHEMA = {
    "entries": """CREATE TABLE entries (
        seq INTEGER PRIMARY KEY, body TEXT NOT NULL, hash TEXT NOT NULL)""",
    "no_update": """CREATE TRIGGER no_update BEFORE UPDATE ON entries
        BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
    "no_delete": """CREATE TRIGGER no_delete BEFORE DELETE ON entries
        BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
    # INSERT OR REPLACE would delete without firing the trigger above.
    "in_order": """CREATE TRIGGER in_order BEFORE INSERT ON entries
        WHEN NEW.seq IS NOT (SELECT coalesce(max(seq) + 1, 0) FROM entries)
        BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
}


def examine(connection: sqlite3.Connection, head: Path) -> tuple[list[Entry], list[str]]:
    """All rows that can be read, and every problem, in words.

    Args:
        connection: the open ledger, in a transaction.
        head: the ledger's head file, which may be missing.
    """
    schema = _schema(connection)
    problems = _schema_problems(schema)
    if schema.get("entries") != SCHEMA["entries"]:
        return [], problems
    entries: list[Entry] = []
    hashes: list[str] = []
    previous = ""
    rows = connection.execute("SELECT seq, body, hash FROM entries ORDER BY seq").fetchall()
    for expected, (seq, text, stored) in enumerate(rows):
        if seq != expected and (not entries or seq != entries[-1].seq + 1):
            problems.append(f"a row is missing before row {seq}")
        if stored != sha256_text(previous, str(text)):
            problems.append(f"row {seq} does not continue the chain: changed, moved or inserted")
        previous = str(stored)
        hashes.append(previous)
        entry = parse(seq, text, previous)
        if entry is None:
            problems.append(f"row {seq} cannot be understood")
        else:
            entries.append(entry)
    problems += _genesis_problems(entries)
    problems += _order_problems(entries)
    problems += head_problems(head, hashes)
    return entries, problems


def _schema(connection: sqlite3.Connection) -> dict[str, str]:
    """The statement that made each table and trigger, by name."""
    # SQLite's own statistics, which other tools leave, are only tables and do nothing.
    statement = """SELECT name, sql FROM sqlite_master
        WHERE NOT (type = 'table' AND name GLOB 'sqlite_stat[0-9]')"""
    return {str(name): sql for name, sql in connection.execute(statement)}


def _schema_problems(schema: dict[str, str]) -> list[str]:
    if "entries" not in schema:
        return ["it has no table of entries"]
    changed = [name for name, sql in SCHEMA.items() if schema.get(name) != sql]
    # One trigger too many could swallow a row while the spend goes on.
    foreign = sorted(set(schema) - set(SCHEMA))
    return [f"the guard {name!r} has been changed or removed" for name in changed] + [
        f"{name!r} does not belong in a ledger" for name in foreign
    ]


def _genesis_problems(entries: Sequence[Entry]) -> list[str]:
    if not entries:
        return ["it has no genesis row"]
    problems = []
    first = entries[0]
    if first.seq != 0 or first.kind != "genesis" or "dataset" not in first.body:
        problems.append("the first row is not a genesis row that names a data set")
    elif first.body.get("version") != LEDGER_VERSION:
        problems.append(f"version {first.body.get('version')} is not {LEDGER_VERSION}")
    if any(entry.kind == "genesis" for entry in entries[1:]):
        problems.append("there is a second genesis row")
    return problems


def _order_problems(entries: Sequence[Entry]) -> list[str]:
    """Rows that an honest ledger never appends: a release twice, or confirmed before reserved."""
    problems, reserved = [], set[str]()
    for entry in entries:
        release = str(entry.body.get("release"))
        if entry.kind == "reserve" and release in reserved:
            problems.append(f"row {entry.seq} reserves a release that was reserved before")
        elif entry.kind == "reserve":
            reserved.add(release)
        elif entry.kind == "commit" and release not in reserved:
            problems.append(f"row {entry.seq} confirms a release that was not reserved")
    return problems
