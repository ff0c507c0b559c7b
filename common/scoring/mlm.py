"""Masked-language modelling: cross-entropy and accuracy of a text's hidden sub-tokens."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from common.examples.batch import Batch, Examples
from common.losses import IGNORED, record_losses
from common.scoring.base import Scoring, ShareAccumulator


def losses(logits: Tensor, batch: Batch) -> Tensor:
    """The mean over each text's hidden sub-tokens, [n]."""
    owner = torch.arange(len(batch), device=logits.device)
    return record_losses(logits, batch.labels, owner, len(batch))


class Accumulator(ShareAccumulator):
    """The share of each text's hidden sub-tokens that were predicted right."""

    def add(self, examples: Examples, batch: Batch, logits: Tensor) -> None:
        """Count the hidden sub-tokens of a batch."""
        hidden = batch.labels != IGNORED
        hits = ((logits.argmax(-1) == batch.labels) & hidden).sum(1).double()
        # A text with nothing to hide counts as right.
        right = torch.where(hidden.any(1), hits / hidden.sum(1).clamp(min=1), 1.0).numpy()
        self.shares[batch.indices, 1] = np.stack([1 - right, right], 1)


SCORING = Scoring(losses, Accumulator)
