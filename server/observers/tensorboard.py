"""Curves for TensorBoard in `RUNDIR/tensorboard/`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from server.history import RoundRecord
from server.observers import Silent


class TensorBoard(Silent):
    """Writes every number of a round under its name in rounds.csv."""

    def __init__(self, directory: Path) -> None:
        self.writer = SummaryWriter(str(directory))

    def round_ended(self, record: RoundRecord) -> None:
        """Write the round's numbers."""
        for name, value in asdict(record).items():
            if name != "round" and value is not None:
                self.writer.add_scalar(name, value, record.round)
        self.writer.flush()

    def finished(self, results: dict[str, Any]) -> None:
        """Close the file."""
        self.writer.close()
