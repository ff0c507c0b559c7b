"""Any number of labels for a text: binary cross-entropy, and counts of decisions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from common.examples.batch import Batch, Examples
from common.metrics import Counts
from common.scoring.base import Scoring, ShareAccumulator


def losses(logits: Tensor, batch: Batch) -> Tensor:
    """Binary cross-entropy of each text, the mean over labels, [n]."""
    each = nn.functional.binary_cross_entropy_with_logits(
        logits.float(), batch.labels, reduction="none"
    )
    return each.mean(1)


class Accumulator(ShareAccumulator):
    """Decisions of each text, and true positives, false positives, false negatives [labels, 3]."""

    def __init__(self, outputs: Sequence[str], rows: int) -> None:
        super().__init__(outputs, rows)
        self.counts = np.zeros((len(outputs), 3))

    def add(self, examples: Examples, batch: Batch, logits: Tensor) -> None:
        """Count the decisions of a batch."""
        given = logits.numpy() > 0
        truth = batch.labels.numpy() > 0.5
        for true in (0, 1):
            for predicted in (0, 1):
                hits = (truth == bool(true)) & (given == bool(predicted))
                self.shares[batch.indices, true, predicted] = hits.mean(1)
        for column, hits in enumerate((truth & given, ~truth & given, truth & ~given)):
            self.counts[:, column] += hits.sum(0)

    def statistics(self) -> Counts | None:
        """Counts [labels, 3]."""
        return self.counts


SCORING = Scoring(losses, Accumulator)
