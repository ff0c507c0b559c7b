"""Several callbacks as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from results.history import RoundRecord
from server.callbacks.base import Callback, FinalModel, RoundResult
from server.checkpoint import Checkpoint


class Chain(Callback):
    """Passes every event to each callback, in order."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self.callbacks = callbacks

    def preparing(self, done: int, total: int) -> None:
        """Pass on."""
        for callback in self.callbacks:
            callback.preparing(done, total)

    def training_starts(self, current: Checkpoint, partners: Sequence[str]) -> None:
        """Pass on."""
        for callback in self.callbacks:
            callback.training_starts(current, partners)

    def started(self, partners: list[str], rounds: int, first_round: int) -> None:
        """Pass on."""
        for callback in self.callbacks:
            callback.started(partners, rounds, first_round)

    def replied(self, round_number: int, done: int, total: int) -> None:
        """Pass on."""
        for callback in self.callbacks:
            callback.replied(round_number, done, total)

    def round_completed(self, result: RoundResult) -> None:
        """Pass on."""
        for callback in self.callbacks:
            callback.round_completed(result)

    def round_ended(self, record: RoundRecord) -> None:
        """Pass on."""
        for callback in self.callbacks:
            callback.round_ended(record)

    def should_stop(self, current: Checkpoint) -> bool:
        """Whether any of them stops the run."""
        return any(callback.should_stop(current) for callback in self.callbacks)

    def training_ended(self, final: FinalModel) -> None:
        """Pass on."""
        for callback in self.callbacks:
            callback.training_ended(final)

    def finished(self, results: dict[str, Any]) -> None:
        """Pass on."""
        for callback in self.callbacks:
            callback.finished(results)
