"""A number for a text: squared error, and sums that give errors and correlations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from common.examples.batch import Batch, Examples
from common.metrics import Counts
from common.scoring.base import Scoring, ShareAccumulator


def losses(logits: Tensor, batch: Batch) -> Tensor:
    """Squared error of each text, [n]; at most 4 while the prediction is within the bounds."""
    return (logits.float() - batch.labels).square().sum(1)


class Accumulator(ShareAccumulator):
    """Absolute errors, and target and prediction as positions [n, 2] within the bounds."""

    def __init__(self, outputs: Sequence[str], rows: int) -> None:
        super().__init__(outputs, rows)
        self.positions = np.zeros((rows, 2))

    def add(self, examples: Examples, batch: Batch, logits: Tensor) -> None:
        """Record the positions and errors of a batch."""
        both = torch.stack([batch.labels[:, 0], logits[:, 0].nan_to_num(0.0)], 1).double()
        self.positions[batch.indices] = both.clamp(-1.0, 1.0).add(1.0).div(2.0).numpy()
        error = np.abs(self.positions[batch.indices, 0] - self.positions[batch.indices, 1])
        self.shares[batch.indices, 1] = np.stack([error, 1 - error], 1)

    def statistics(self) -> Counts | None:
        """n and the sums of p, q, p², q² and pq, [1, 6]."""
        p, q = self.positions.T
        return np.array([[len(p), p.sum(), q.sum(), p @ p, q @ q, p @ q]], dtype=np.float64)

    def extra(self) -> dict[str, float]:
        """Spearman's rank correlation, where both positions vary."""
        # scipy.stats takes half a second to import, and only the server's test set needs it.
        from scipy.stats import spearmanr

        p, q = self.positions.T
        if len(p) < 2 or not np.ptp(p) > 0 or not np.ptp(q) > 0:
            return {}
        return {"spearman": float(spearmanr(p, q).statistic)}


SCORING = Scoring(losses, Accumulator)
