"""One label for a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from torch import Tensor

from common.data.schema import DataConfig
from common.losses import record_losses
from common.metrics import Counts
from common.tasks.base import Tally, Task, confusion

if TYPE_CHECKING:
    from common.features import Batch, Examples


class Classification(Task):
    """Cross-entropy; tables [labels, labels]."""

    name = "classification"
    noun = "text classifier"

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of each text."""
        return record_losses(logits, batch.labels, batch.owner, len(batch))

    def tally(self, outputs: Sequence[str], rows: int) -> Tally:
        """Counts of true and predicted labels."""
        return _Tally(len(outputs), rows)

    def does(self, data: DataConfig) -> str:
        """As a clause."""
        return f"assigns a text to one of {len(data.labels)} labels"

    def purpose(self, names: str) -> str:
        """As a clause."""
        return f"assigning one of {names} to"


class _Tally:
    def __init__(self, classes: int, rows: int) -> None:
        self.classes = classes
        self.truth = np.zeros(rows, dtype=np.int64)
        self.predicted = np.zeros(rows, dtype=np.int64)

    def add(self, examples: Examples, batch: Batch, logits: Tensor) -> None:
        self.predicted[batch.indices] = logits.argmax(1).numpy()
        self.truth[batch.indices] = batch.labels.numpy()

    def table(self, rows: npt.NDArray[np.bool_]) -> Counts:
        return confusion(self.truth[rows], self.predicted[rows], self.classes)

    def sums(self) -> Counts | None:
        return None

    def extra(self) -> dict[str, float]:
        return {}
