"""What hangs on the round loop: one observer a file, each told what happened, none in control."""

from __future__ import annotations

from typing import Any, Protocol

from results.history import RoundRecord


class Observer(Protocol):
    """Told of a run's events, in order, from the server's thread."""

    def started(self, partners: list[str], rounds: int, first_round: int) -> None:
        """All partners are ready; training begins with `first_round`."""

    def preparing(self, done: int, total: int) -> None:
        """`done` of `total` partners have prepared their data."""

    def replied(self, round_number: int, done: int, total: int) -> None:
        """`done` of the `total` partners of a round have answered."""

    def round_ended(self, record: RoundRecord) -> None:
        """A round's checkpoint is on disk.  Partner columns may still be empty."""

    def finished(self, results: dict[str, Any]) -> None:
        """results.json is on disk."""


class Silent:
    """An observer that ignores every event: a base to override single methods of."""

    def started(self, partners: list[str], rounds: int, first_round: int) -> None:
        """Ignore."""

    def preparing(self, done: int, total: int) -> None:
        """Ignore."""

    def replied(self, round_number: int, done: int, total: int) -> None:
        """Ignore."""

    def round_ended(self, record: RoundRecord) -> None:
        """Ignore."""

    def finished(self, results: dict[str, Any]) -> None:
        """Ignore."""
