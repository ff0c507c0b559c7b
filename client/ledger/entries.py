"""What a row of the ledger says: its kinds, their fields, and the check of a row that is read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from client.accounting import Budget, Segment
from common.errors import LocalError

LEDGER_VERSION = 1


class LedgerError(LocalError):
    """The ledger cannot be used: damaged, of another data set, or not writable."""


@dataclass(frozen=True)
class Spend:
    """A release that is about to be made, and what it costs.

    Attributes:
        run: name of the training run.
        release: identity of the *output*.  Reserving a known release again with equal segments
            does not count twice, which is right only if the repetition gives the very same
            output, bit for bit; see ``docs/ledger.md``.  In deployment each release must be a
            fresh random name.
        segments: the mechanisms that will be run.
        delta: the delta for which the run was planned; recorded.
        what: for the reader, e.g. "training, round 3"; no private values.
        part: which records are touched, as ``division/side``; ``""`` means all of them.
    """

    run: str
    release: str
    segments: Sequence[Segment]
    delta: float
    what: str
    part: str = ""

    def body(self, cap: Budget | None) -> dict[str, Any]:
        """What a row about this spend says, under the limit `cap`."""
        return {
            "run": self.run,
            "release": self.release,
            "segments": [[s.noise_multiplier, s.sample_rate, s.steps] for s in self.segments],
            "delta": self.delta,
            "what": self.what,
            "cap": None if cap is None else [cap.epsilon, cap.delta],
            "part": self.part,
        }


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


@dataclass(frozen=True)
class Entry:
    """One verified row: its number, its content, and its hash."""

    seq: int
    body: Mapping[str, Any]
    hash: str

    @property
    def kind(self) -> str:
        """The kind of row: genesis, reserve, commit or refuse."""
        return str(self.body["kind"])

    @property
    def withheld(self) -> bool:
        """Whether a refuse row is about metrics that were left out of a message that went on."""
        return self.body.get("withheld") is True

    @property
    def exact(self) -> bool:
        """Whether something left without noise."""
        return any(segment.noise_multiplier == 0 for segment in self.segments)

    @property
    def segments(self) -> list[Segment]:
        """The mechanisms of a reserve or refuse row."""
        return [Segment(sigma, rate, steps) for sigma, rate, steps in self.body["segments"]]


@lru_cache(maxsize=1024)
def parse(seq: int, text: Any, stored: str) -> Entry | None:
    """The row, or None where it lacks something that a row of its kind must say."""
    try:
        body = json.loads(text)
        if isinstance(body, dict) and isinstance(body["time"], str) and _is_complete(body):
            return Entry(seq, body, stored)
    except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError):
        pass
    return None


def _is_complete(body: Mapping[str, Any]) -> bool:
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


def reservations_by_release(entries: Sequence[Entry]) -> dict[str, Entry]:
    """The reserve row of each release, in order."""
    return {str(e.body["release"]): e for e in entries if e.kind == "reserve"}


def committed_releases(entries: Sequence[Entry]) -> set[str]:
    """The releases that were confirmed."""
    return {str(e.body["release"]) for e in entries if e.kind == "commit"}
