"""One label for a text: cross-entropy, and counts of true and predicted labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from common.examples.batch import Batch, Examples
from common.losses import record_losses
from common.metrics import Counts
from common.scoring.base import Scoring, confusion_matrix


def losses(logits: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy of each text, [n]."""
    return record_losses(logits, batch.labels, batch.owner, len(batch))


class Accumulator:
    """True and predicted label of every text."""

    def __init__(self, outputs: Sequence[str], rows: int) -> None:
        self.classes = len(outputs)
        self.truth = np.zeros(rows, dtype=np.int64)
        self.predicted = np.zeros(rows, dtype=np.int64)

    def add(self, examples: Examples, batch: Batch, logits: Tensor) -> None:
        """Record the labels of a batch."""
        self.predicted[batch.indices] = logits.argmax(1).numpy()
        self.truth[batch.indices] = batch.labels.numpy()

    def confusion(self, rows: npt.NDArray[np.bool_]) -> Counts:
        """Counts [labels, labels]."""
        return confusion_matrix(self.truth[rows], self.predicted[rows], self.classes)

    def statistics(self) -> Counts | None:
        """None: the confusion matrix has them all."""
        return None

    def extra(self) -> dict[str, float]:
        """Nothing."""
        return {}


SCORING = Scoring(losses, Accumulator)
