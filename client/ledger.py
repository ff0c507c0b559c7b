"""What a partner has spent of one data set's privacy: an append-only, hash-chained SQLite file.

The order is *reserve, train, commit*.  A reservation is on the disk before the first gradient is
computed and counts as spent from then on, committed or not, so that a crash can only count too
much, never too little.  ``docs/ledger.md`` says what the file proves and what it cannot.

Rows are ``(seq, body, hash)``: ``body`` is canonical JSON and ``hash`` is SHA-256 over the previous
row's hash and the body.  Row 0, the genesis, names the data set.  Beside ``x.db`` lies
``x.db.head`` with the number of rows and the last hash; it is what shows that a tail was cut off.

Durability: a rollback journal with ``synchronous=EXTRA``, which is emptied and flushed at a commit
(never removed, which costs a flush of the folder), so that a commit survives a power cut as well as
``kill -9``.  Every append reads and verifies the whole chain under SQLite's write lock: a damaged
ledger stops the partner, and concurrent processes can neither fork the chain nor overspend
together.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from client import lifetime
from client.accounting import Budget, BudgetExceeded, Epsilon, Segment, epsilon
from client.division import VALIDATION
from common.errors import LocalError
from common.files import canonical_json, sha256_text, write_atomic

LEDGER_VERSION = 1
_BUSY_SECONDS = 60.0
_SCHEMA = {
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


class LedgerError(LocalError):
    """The ledger cannot be used: damaged, of another data set, or not writable."""


@dataclass(frozen=True)
class Entry:
    """One verified row: its place, what it says, and its hash."""

    seq: int
    body: Mapping[str, Any]
    hash: str

    @property
    def kind(self) -> str:
        """genesis, reserve, commit or refuse."""
        return str(self.body["kind"])

    @property
    def withheld(self) -> bool:
        """Of a refuse row: metrics that were left out, where all else of the message went on."""
        return self.body.get("withheld") is True

    @property
    def exact(self) -> bool:
        """Whether something left without noise."""
        return any(segment.noise_multiplier == 0 for segment in self.segments)

    @property
    def segments(self) -> list[Segment]:
        """What a reserve or refuse row is about."""
        return [Segment(sigma, rate, steps) for sigma, rate, steps in self.body["segments"]]


@dataclass(frozen=True)
class Reservation:
    """A spend that is on the disk.

    ``repeated`` is True when the very same release had been reserved before, so that it did not
    count again.
    """

    seq: int
    run: str
    release: str
    segments: tuple[Segment, ...]
    repeated: bool = False


class Ledger:
    """The ledger of one data set; use :meth:`open`, best as a context manager.

    One object belongs to one thread; any number of processes may have the same file open.  The file
    must lie on a local disk: SQLite's locks are not dependable on network file systems.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, dataset: str) -> None:
        self.path = path
        self.dataset = dataset
        self._db = connection

    @classmethod
    def open(cls, path: Path | str, dataset: str) -> Ledger:
        """Open the ledger of ``dataset``, or begin it where there is no file yet.

        Raises:
            LedgerError: if the file belongs to another data set, is damaged, has lost its tail, or
                cannot be written.
        """
        path = _real(path)
        if not dataset:
            raise LedgerError("a ledger needs the name of its data set")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _create_private(path)
            connection = _connect(path)
        except (OSError, sqlite3.Error) as failure:
            raise LedgerError(f"ledger {path} cannot be opened: {failure}") from failure
        ledger = cls(path, connection, dataset)
        try:
            ledger._begin()
        except BaseException:
            connection.close()
            raise
        return ledger

    def reserve(
        self,
        run: str,
        release: str,
        segments: Sequence[Segment],
        delta: float,
        what: str,
        cap: Budget | None,
        part: str = "",
        *,
        withhold: bool = False,
    ) -> Reservation:
        """Write down a spend before anything of it happens.

        Args:
            run: name of the training run.
            release: identity of the *output*.  Reserving a known release again with equal segments
                does not count twice, which is right only if the repetition gives the very same
                output, bit for bit; see ``docs/ledger.md``.  In deployment each release must be a
                fresh random name.
            segments: the mechanisms that will be run.
            delta: the delta for which the run was planned; recorded.
            what: for the reader, e.g. "training, round 3"; no private values.
            cap: the most that may be spent on the data set in all, or None for no limit: where
                the partner's policy allows a release without noise, no limit could hold it.
            part: which records are touched, as ``division/side``; ``""`` means all of them.
            withhold: without this release the caller goes on, so a refusal is noted as withheld.

        Returns:
            the reservation, durably stored.

        Raises:
            BudgetExceeded: if the whole data set's spend would exceed ``cap`` (by the rule of
                `client/lifetime.py`); only a refusal row is then written, which counts nothing.
            LedgerError: if the release is known with other segments, or the ledger is damaged or
                cannot be written; nothing may then be trained.
            ValueError: if delta is not between 0 and 1, or a name is not text.
        """
        segments = tuple(segments)
        with self._append() as (entries, add):
            known = _reservations(entries).get(release)
            if known is not None:
                if tuple(known.segments) != segments or known.body["run"] != run:
                    raise LedgerError(
                        f"ledger {self.path}: release {release!r} is already reserved for another "
                        "mechanism or run; a new release needs a new name"
                    )
                return Reservation(known.seq, run, release, segments, repeated=True)
            body = {
                "run": run,
                "release": release,
                "segments": [[s.noise_multiplier, s.sample_rate, s.steps] for s in segments],
                "delta": delta,
                "what": what,
                "cap": None if cap is None else [cap.epsilon, cap.delta],
                "part": part,
            }
            refusal = None
            if cap is not None:
                refusal = self._refusal(entries, run, part, segments, delta, cap)
            if refusal is None:
                return Reservation(add("reserve", body), run, release, segments)
            add("refuse", {**body, "reason": refusal, **({"withheld": True} if withhold else {})})
        raise BudgetExceeded(refusal)

    def note_withheld(self, run: str, what: str, delta: float, part: str, reason: str) -> None:
        """Note that metrics were left out of a message; once for each run, part and reason."""
        body = {
            "run": run,
            "release": f"{run}/withheld",
            "segments": [],
            "delta": delta,
            "what": what,
            "cap": None,
            "part": part,
            "reason": reason,
            "withheld": True,
        }
        with self._append() as (entries, add):
            known = any(
                entry.withheld
                and (entry.body["run"], entry.body.get("part")) == (run, part)
                and entry.body["reason"] == reason
                for entry in entries
            )
            if not known:
                add("refuse", body)

    def commit(self, reservation: Reservation) -> None:
        """Note that a reserved release has happened.  Committing twice is harmless.

        Raises:
            LedgerError: if there is no such reservation here, or the row cannot be written (the
                spend counts nevertheless).
        """
        with self._append() as (entries, add):
            known = _reservations(entries).get(reservation.release)
            if known is None or known.seq != reservation.seq:
                raise LedgerError(f"ledger {self.path} has no reservation {reservation.release!r}")
            if reservation.release not in _committed(entries):
                add("commit", {"release": reservation.release, "reserved_as": known.seq})

    def entries(self) -> list[Entry]:
        """All rows, verified.

        Raises:
            LedgerError: if the chain is broken or the tail is missing.
        """
        try:
            # One read transaction, so that head and rows belong together.
            self._db.execute("BEGIN")
            try:
                return self._read()
            finally:
                self._db.execute("ROLLBACK")
        except sqlite3.Error as failure:
            raise LedgerError(f"ledger {self.path} cannot be read: {failure}") from failure

    def spent(self, run: str | None = None, *, other_than: str | None = None) -> list[Segment]:
        """Every reserved segment, committed or not: of one run, of all others, or of all."""
        return spent(self.entries(), run, other_than=other_than)

    def beside(self, part: str, *, other_than: str | None = None) -> list[Segment]:
        """What a further spend on ``part`` composes with; see :func:`beside`."""
        return beside(self.entries(), part, other_than=other_than)

    def releases(self, run: str, part: str, *, other_than: str) -> int:
        """How many releases of a run touch ``part``, the one named ``other_than`` left out."""
        return sum(
            entry.kind == "reserve"
            and entry.body["run"] == run
            and entry.body.get("part") == part
            and entry.body["release"] != other_than
            for entry in self.entries()
        )

    def planned(self, run: str, part: str) -> bool:
        """Whether a spend of ``run`` on ``part`` belongs to one plan; see :func:`is_planned`."""
        return is_planned(self.entries(), run, part)

    def epsilon(self, delta: float, run: str | None = None, side: str | None = None) -> float:
        """Upper bound on what has been spent, at ``delta``; see :func:`total`."""
        return total(self.entries(), delta, run, side).value

    def head(self) -> tuple[int, str]:
        """Number of rows and last hash; kept elsewhere, it pins the whole history."""
        entries = self.entries()
        return len(entries), entries[-1].hash

    def close(self) -> None:
        """Release the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _begin(self) -> None:
        """Write the genesis into an empty file, or check that the file is this data set's."""
        with self._transaction():
            is_new = not self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if is_new:
                if _head_path(self.path).exists():
                    raise LedgerError(
                        f"ledger {self.path} has been removed or emptied while its head file "
                        "remains: put the ledger back from a backup"
                    )
                for statement in _SCHEMA.values():
                    self._db.execute(statement)
                genesis = {"dataset": self.dataset, "version": LEDGER_VERSION}
                self._insert(0, "", "genesis", genesis)
            entries = self._read()
        owner = entries[0].body["dataset"]
        if owner != self.dataset:
            raise LedgerError(
                f"ledger {self.path} belongs to data set {owner!r}, not {self.dataset!r}"
            )
        if _stored_head(self.path) != _head_text(len(entries), entries[-1].hash):
            self._store_head()

    @contextmanager
    def _append(self) -> Iterator[tuple[list[Entry], Any]]:
        """The verified rows and a function that appends one, all under the write lock."""
        added = False
        with self._transaction():
            entries = self._read()

            def add(kind: str, body: Mapping[str, Any]) -> int:
                nonlocal added
                added = True
                return self._insert(len(entries), entries[-1].hash, kind, body)

            yield entries, add
        if added:
            self._store_head()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
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
            count, last = self._db.execute(
                "SELECT (SELECT count(*) FROM entries), hash FROM entries ORDER BY seq DESC LIMIT 1"
            ).fetchone()
            text = _head_text(count, last)
            if _stored_head(self.path) != text:
                write_atomic(_head_path(self.path), text, mode=0o600)

    def _insert(self, seq: int, previous: str, kind: str, body: Mapping[str, Any]) -> int:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        text = canonical_json({**body, "kind": kind, "time": now})
        if _parse(seq, text, "") is None:
            raise ValueError(f"not a row that a ledger could be read with again: {kind}")
        self._db.execute(
            "INSERT INTO entries VALUES (?, ?, ?)", (seq, text, sha256_text(previous, text))
        )
        return seq

    def _read(self) -> list[Entry]:
        entries, problems = _examine(self._db, _head_path(self.path))
        if problems:
            raise LedgerError(
                f"ledger {self.path} is damaged: {problems[0]}; put it back from a backup"
            )
        return entries

    def _refusal(
        self,
        entries: Sequence[Entry],
        run: str,
        part: str,
        segments: tuple[Segment, ...],
        delta: float,
        cap: Budget,
    ) -> str | None:
        if delta > cap.delta:
            allowed = f"the {cap.delta:g} allowed on data set {self.dataset!r}"
            return f"delta {delta:g} is above {allowed}"
        before, planned = beside(entries, part), is_planned(entries, run, part, segments)
        if lifetime.allowed([*before, *segments], cap, planned=planned):
            return None
        already = lifetime.counted(before, cap, planned=planned)
        after = lifetime.counted([*before, *segments], cap, planned=planned)
        return (
            f"budget of data set {self.dataset!r} exceeded: epsilon {already:.4g} of "
            f"{cap.epsilon:.4g} is spent, and this would make it {after:.4g}"
        )


def read(path: Path | str) -> list[Entry]:
    """The verified rows of a ledger, without writing to it.

    Raises:
        LedgerError: if there is no such file or it is damaged.
    """
    entries, problems = _inspect(_real(path))
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
    return _inspect(_real(path))[1]


def spent(
    entries: Sequence[Entry], run: str | None = None, *, other_than: str | None = None
) -> list[Segment]:
    """Every segment reserved in these rows: of one run, of all others, or of all."""
    return [
        segment
        for entry in entries
        if entry.kind == "reserve"
        and (run is None or entry.body["run"] == run)
        and (other_than is None or entry.body["run"] != other_than)
        for segment in entry.segments
    ]


def compositions(
    entries: Sequence[Entry], run: str | None = None, *, other_than: str | None = None
) -> dict[str, list[Segment]]:
    """What one record can have been exposed to, for each part of the data set.

    A record is on one side of a division (training or validation), so the spends on the other side
    do not touch it: parallel composition.  That argument needs one and the same division, because
    under another one a record may be on the other side: where there are several divisions, all
    spends are composed as if they touched the same records.
    """
    parts: dict[str, list[Segment]] = {}
    for entry in entries:
        if entry.kind != "reserve" or run not in (None, entry.body["run"]):
            continue
        if other_than is None or entry.body["run"] != other_than:
            # Rows from before parts were recorded touch all records.
            parts.setdefault(str(entry.body.get("part", "")), []).extend(entry.segments)
    if len({part.partition("/")[0] for part in parts if part}) > 1:
        return {"": [segment for segments in parts.values() for segment in segments]}
    everywhere = parts.pop("", [])
    return {part: [*everywhere, *segments] for part, segments in parts.items()} or {"": everywhere}


def beside(entries: Sequence[Entry], part: str, *, other_than: str | None = None) -> list[Segment]:
    """What a further spend on ``part`` composes with; see :func:`compositions`."""
    held = [
        entry
        for entry in entries
        if entry.kind == "reserve" and (other_than is None or entry.body["run"] != other_than)
    ]
    parts = {str(entry.body.get("part", "")) for entry in held} - {""}
    if part and len({name.partition("/")[0] for name in (*parts, part)}) == 1:
        held = [entry for entry in held if entry.body.get("part", "") in ("", part)]
    return [segment for entry in held for segment in entry.segments]


def is_planned(entries: Sequence[Entry], run: str, part: str, new: Sequence[Segment] = ()) -> bool:
    """Whether ``new`` spends of ``run`` on ``part`` are of one plan, as `client/lifetime.py` needs.

    All are noisy metrics on validation records; or nothing of another run touches the same records,
    and those of this run have one noise multiplier and one sampling rate, which the first of them
    fixed, beside one release of the number of rows.  A run's name alone says nothing: whoever sends
    the requests chooses it, and may send other settings under it once it has seen an update.
    """
    held = [*beside(entries, part), *new]
    parts = {str(entry.body.get("part", "")) for entry in entries if entry.kind == "reserve"}
    one_division = len({name.partition("/")[0] for name in {*parts, part} - {""}}) == 1
    if one_division and part.endswith(f"/{VALIDATION}") and all(s.sample_rate == 1 for s in held):
        return True
    if beside(entries, part, other_than=run):
        return False
    steps: dict[tuple[str, float], int] = {}
    for segment in held:
        # Solved again with other libraries, a noise multiplier may differ in its last digits.
        mechanism = (f"{segment.noise_multiplier:.6g}", segment.sample_rate)
        steps[mechanism] = steps.get(mechanism, 0) + segment.steps
    single = sum(rate == 1 and count == 1 for (_, rate), count in steps.items())
    return len(steps) <= 1 or (len(steps) == 2 and single > 0)


def total(
    entries: Sequence[Entry], delta: float, run: str | None = None, side: str | None = None
) -> Epsilon:
    """Upper bound on what any one record has been exposed to, of one run or of all.

    With ``side`` of the records on that side (training or validation) alone.  Where there are
    several divisions, a record can have been on either, and the bound is that of both together.
    """
    parts = compositions(entries, run)
    if side is not None:
        parts = {p: held for p, held in parts.items() if not p or p.endswith(f"/{side}")}
    return max(
        (epsilon(segments, delta) for segments in (parts or {"": []}).values()),
        key=lambda found: found.value,
    )


def reservations(entries: Sequence[Entry]) -> list[tuple[Entry, bool]]:
    """Each reservation in order, and whether it was committed."""
    committed = _committed(entries)
    return [(e, release in committed) for release, e in _reservations(entries).items()]


def _inspect(path: Path) -> tuple[list[Entry], list[str]]:
    try:
        if not path.is_file():
            raise LedgerError(f"there is no ledger {path}")
        # Opened for writing, because a journal that a crash has left must be rolled back first.
        connection = _connect(path)
        try:
            connection.execute("BEGIN")
            return _examine(connection, _head_path(path))
        finally:
            connection.close()
    except (OSError, sqlite3.OperationalError) as failure:
        raise LedgerError(f"ledger {path} cannot be read now: {failure}") from failure
    except sqlite3.DatabaseError as failure:
        return [], [f"the file cannot be read as a ledger: {failure}"]


def _examine(connection: sqlite3.Connection, head: Path) -> tuple[list[Entry], list[str]]:
    """Rows that can be read, and all that is wrong."""
    problems: list[str] = []
    # SQLite's own statistics, which other tools leave, are only tables and do nothing.
    statement = """SELECT name, sql FROM sqlite_master
        WHERE NOT (type = 'table' AND name GLOB 'sqlite_stat[0-9]')"""
    schema = {str(name): sql for name, sql in connection.execute(statement)}
    if "entries" not in schema:
        return [], ["it holds no entries at all"]
    problems += [
        f"the guard {name!r} has been changed or removed"
        for name, sql in _SCHEMA.items()
        if schema.get(name) != sql
    ]
    # A trigger more could swallow a row while the spend goes on.
    strange = sorted(set(schema) - set(_SCHEMA))
    problems += [f"{name!r} does not belong into a ledger" for name in strange]
    if schema["entries"] != _SCHEMA["entries"]:
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
        entry = _parse(seq, text, previous)
        if entry is None:
            problems.append(f"row {seq} cannot be understood")
        else:
            entries.append(entry)
    problems += _genesis_problems(entries)
    problems += _order_problems(entries)
    problems += _head_problems(head, hashes)
    return entries, problems


@lru_cache(maxsize=1024)
def _parse(seq: int, text: Any, stored: str) -> Entry | None:
    """The row, or None where it does not say all that a row of its kind has to."""
    try:
        body = json.loads(text)
        if isinstance(body, dict) and isinstance(body["time"], str) and _whole(body):
            return Entry(seq, body, stored)
    except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError):
        pass
    return None


def _whole(body: Mapping[str, Any]) -> bool:
    """Whether a row's content has what its kind needs, each of the right type.

    May raise ValueError, KeyError, TypeError or ArithmeticError where it has not.
    """
    match body["kind"]:
        case "genesis":
            return isinstance(body["dataset"], str) and isinstance(body["version"], int)
        case "commit":
            return isinstance(body["release"], str) and isinstance(body["reserved_as"], int)
        case "reserve" | "refuse":
            texts = [body["run"], body["release"], body["what"], body.get("part", "")]
            if body["kind"] == "refuse":
                texts.append(body["reason"])
                if not isinstance(body.get("withheld", False), bool):
                    return False
            for sigma, rate, steps in body["segments"]:
                Segment(sigma, rate, steps)
                float(sigma), float(steps)
            # Its check is that of any delta; the epsilon plays no part.
            Budget(1.0, body["delta"])
            if body["cap"] is not None:
                Budget(*body["cap"])
            return all(isinstance(text, str) for text in texts)
        case _:
            return False


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


def _head_problems(head: Path, hashes: Sequence[str]) -> list[str]:
    """Whether the head file is the chain's last row or an earlier one (a crash before it moved)."""
    try:
        stored = json.loads(head.read_text(encoding="utf-8"))
        rows, last = int(stored["rows"]), str(stored["hash"])
    except FileNotFoundError:
        # Between the genesis and its first head there is nothing to lose yet.
        return [] if len(hashes) <= 1 else [f"the head file {head.name} is missing"]
    except (OSError, ValueError, KeyError, TypeError, ArithmeticError, RecursionError):
        return [f"the head file {head.name} cannot be read"]
    if rows > len(hashes):
        return [f"the tail is cut off: {rows} rows were written, {len(hashes)} are left"]
    if rows < 1 or hashes[rows - 1] != last:
        return [f"row {max(rows, 1) - 1} is not the one that the head file {head.name} names"]
    return []


def _reservations(entries: Sequence[Entry]) -> dict[str, Entry]:
    return {str(e.body["release"]): e for e in entries if e.kind == "reserve"}


def _committed(entries: Sequence[Entry]) -> set[str]:
    return {str(e.body["release"]) for e in entries if e.kind == "commit"}


def _real(path: Path | str) -> Path:
    """The file itself where `path` is a link: its head file lies beside it.

    Raises LedgerError when the path leads nowhere that a file could be.
    """
    try:
        return Path(path).resolve()
    except (OSError, ValueError, RuntimeError) as failure:
        raise LedgerError(f"ledger {path} cannot be opened: {failure}") from failure


def _head_path(path: Path) -> Path:
    return path.with_name(path.name + ".head")


def _head_text(rows: int, last: str) -> str:
    return canonical_json({"rows": rows, "hash": last})


def _stored_head(path: Path) -> str | None:
    try:
        return _head_path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def _create_private(path: Path) -> None:
    """Make an empty file of mode 0600 before SQLite would make one that others can read."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        path.chmod(0o600)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
    # A row that is no text must be found by its hash, not stop whoever looks for it.
    connection.text_factory = lambda data: data.decode(errors="replace")
    connection.execute("PRAGMA journal_mode=TRUNCATE")
    connection.execute("PRAGMA synchronous=EXTRA")
    return connection
