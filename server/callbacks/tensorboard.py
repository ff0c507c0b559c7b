"""Curves for TensorBoard in `RUNDIR/tensorboard/`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from results.history import RoundRecord
from server.callbacks.base import Callback


class TensorBoard(Callback):
    """Writes every number of a round under its name in rounds.csv.

    Partners measure a round's model in the next round, and these figures are written then.
    """

    def __init__(self, directory: Path) -> None:
        self.writer = SummaryWriter(str(directory))
        self.written: set[tuple[int, str]] = set()
        self.open: list[RoundRecord] = []

    def round_ended(self, record: RoundRecord) -> None:
        """Write the figures of this round, and those of the round before that are new."""
        self.open = [*self.open[-1:], record]
        for row in self.open:
            self._write(row.row())
        self.writer.flush()

    def finished(self, results: dict[str, Any]) -> None:
        """Write the figures that are still missing and close the file."""
        for row in results["rounds"]:
            self._write(row)
        self.writer.close()

    def _write(self, row: dict[str, Any]) -> None:
        number = int(row["round"])
        for name, value in row.items():
            if name != "round" and value is not None and (number, name) not in self.written:
                self.writer.add_scalar(name, value, number)
                self.written.add((number, name))
