"""A checkpoint after every round."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from server import checkpoint as checkpoints
from server.callbacks.base import Callback, RoundResult
from server.checkpoint import Checkpoint


class SaveCheckpoint(Callback):
    """Keeps the newest `keep` checkpoints in a folder."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep

    def training_starts(self, current: Checkpoint, partners: Sequence[str]) -> None:
        """Save the untrained model of a new run.

        Before any partner reserves a spend: the partners' ledgers know a run by its id, and a run
        that is killed in its first round must come back under the same id.
        """
        if not checkpoints.folders(self.folder):
            checkpoints.save(self.folder, current, self.keep)

    def round_completed(self, result: RoundResult) -> None:
        """Save the run after the round."""
        checkpoints.save(self.folder, result.checkpoint, self.keep)
