"""`rounds.csv`: one line per round."""

from __future__ import annotations

from pathlib import Path

from common.files import write_atomic
from results.history import rounds_csv
from server.callbacks.base import Callback, FinalModel, RoundResult


class WriteRounds(Callback):
    """Writes the table anew after every round: the round before has its partner columns then."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def round_completed(self, result: RoundResult) -> None:
        """Write the rounds so far."""
        write_atomic(self.path, rounds_csv(result.checkpoint.history))

    def training_ended(self, final: FinalModel) -> None:
        """Write all rounds, the last one with its partner columns."""
        write_atomic(self.path, rounds_csv(final.history))
