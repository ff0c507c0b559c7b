"""The ledger of one data set: reserve before anything is released, commit afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from client import lifetime
from client.accounting import Budget, BudgetExceeded, Segment
from client.ledger import spends
from client.ledger.entries import (
    Entry,
    LedgerError,
    Reservation,
    Spend,
    committed_releases,
    reservations_by_release,
)
from client.ledger.storage import Storage, real_path


class Ledger:
    """The ledger of one data set; use :meth:`open`, best as a context manager.

    One object belongs to one thread; any number of processes may have the same file open.  The file
    must be on a local disk: SQLite's locks are not dependable on network file systems.
    """

    def __init__(self, storage: Storage, dataset: str) -> None:
        self.path = storage.path
        self.dataset = dataset
        self._storage = storage

    @classmethod
    def open(cls, path: Path | str, dataset: str) -> Ledger:
        """Open the ledger of ``dataset``, or begin it where there is no file yet.

        Raises:
            LedgerError: if the file belongs to another data set, is damaged, has lost its tail, or
                cannot be written.
        """
        path = real_path(path)
        if not dataset:
            raise LedgerError("a ledger needs the name of its data set")
        storage = Storage(path)
        try:
            storage.begin(dataset)
        except BaseException:
            storage.close()
            raise
        return cls(storage, dataset)

    def reserve(self, spend: Spend, cap: Budget | None, *, withhold: bool = False) -> Reservation:
        """Write down a spend before anything of it happens.

        Args:
            spend: the release that is about to be made.
            cap: the most that may be spent on the data set in all, or None for no limit: where
                the partner's policy allows a release without noise, no finite limit could cover it.
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
        segments = tuple(spend.segments)
        with self._storage.appending() as (entries, add):
            known = reservations_by_release(entries).get(spend.release)
            if known is not None:
                if tuple(known.segments) != segments or known.body["run"] != spend.run:
                    raise LedgerError(
                        f"ledger {self.path}: release {spend.release!r} is already reserved for "
                        "another mechanism or run; a new release needs a new name"
                    )
                return Reservation(known.seq, spend.run, spend.release, segments, repeated=True)
            refusal = None if cap is None else self._refusal(entries, spend, cap)
            if refusal is None:
                seq = add("reserve", spend.body(cap))
                return Reservation(seq, spend.run, spend.release, segments)
            marks = {"reason": refusal, **({"withheld": True} if withhold else {})}
            add("refuse", {**spend.body(cap), **marks})
        raise BudgetExceeded(refusal)

    def note_withheld(self, run: str, what: str, delta: float, part: str, reason: str) -> None:
        """Note that metrics were left out of a message; once for each run, part and reason."""
        withheld = Spend(run, f"{run}/withheld", (), delta, what, part)
        with self._storage.appending() as (entries, add):
            known = any(
                entry.withheld
                and (entry.body["run"], entry.body.get("part")) == (run, part)
                and entry.body["reason"] == reason
                for entry in entries
            )
            if not known:
                add("refuse", {**withheld.body(None), "reason": reason, "withheld": True})

    def commit(self, reservation: Reservation) -> None:
        """Note that a reserved release has happened.  Committing twice is harmless.

        Raises:
            LedgerError: if there is no such reservation here, or the row cannot be written (the
                spend counts nevertheless).
        """
        with self._storage.appending() as (entries, add):
            known = reservations_by_release(entries).get(reservation.release)
            if known is None or known.seq != reservation.seq:
                raise LedgerError(f"ledger {self.path} has no reservation {reservation.release!r}")
            if reservation.release not in committed_releases(entries):
                add("commit", {"release": reservation.release, "reserved_as": known.seq})

    def entries(self) -> list[Entry]:
        """All rows, verified.

        Raises:
            LedgerError: if the chain is broken or the tail is missing.
        """
        return self._storage.read()

    def spent(self, run: str | None = None, *, other_than: str | None = None) -> list[Segment]:
        """Every reserved segment, committed or not: of one run, of all others, or of all."""
        return spends.spent(self.entries(), run, other_than=other_than)

    def composed_with(self, part: str, *, other_than: str | None = None) -> list[Segment]:
        """The segments that a further spend on ``part`` composes with."""
        return spends.composed_with(self.entries(), part, other_than=other_than)

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
        """Whether a spend of ``run`` on ``part`` belongs to one plan; see `spends.is_planned`."""
        return spends.is_planned(self.entries(), run, part)

    def epsilon(self, delta: float, run: str | None = None, side: str | None = None) -> float:
        """Upper bound on what has been spent, at ``delta``; see `spends.total`."""
        return spends.total(self.entries(), delta, run, side).value

    def head(self) -> tuple[int, str]:
        """Number of rows and last hash; kept elsewhere, it pins the whole history."""
        entries = self.entries()
        return len(entries), entries[-1].hash

    def close(self) -> None:
        """Release the file."""
        self._storage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _refusal(self, entries: Sequence[Entry], spend: Spend, cap: Budget) -> str | None:
        """Why the limit ``cap`` does not allow ``spend``, in words; None where it does."""
        if spend.delta > cap.delta:
            allowed = f"the {cap.delta:g} allowed on data set {self.dataset!r}"
            return f"delta {spend.delta:g} is above {allowed}"
        before = spends.composed_with(entries, spend.part)
        after = [*before, *spend.segments]
        planned = spends.is_planned(entries, spend.run, spend.part, spend.segments)
        if lifetime.allowed(after, cap, planned=planned):
            return None
        already = lifetime.counted(before, cap, planned=planned)
        would_be = lifetime.counted(after, cap, planned=planned)
        return (
            f"budget of data set {self.dataset!r} exceeded: epsilon {already:.4g} of "
            f"{cap.epsilon:.4g} is spent, and this would make it {would_be:.4g}"
        )
