"""Named entities: cross-entropy of words, and counts of words and of entities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
from torch import Tensor

from common.entities import entity_counts
from common.examples.batch import Batch, Examples
from common.examples.token_classification import WordExamples
from common.losses import record_losses
from common.metrics import Counts
from common.scoring.base import Scoring, confusion_matrix


def losses(logits: Tensor, batch: Batch) -> Tensor:
    """The mean over each record's words, [n]."""
    return record_losses(logits, batch.labels, batch.owner, len(batch))


class Accumulator:
    """A confusion matrix of words for each record, and counts of entities [types, 3]."""

    def __init__(self, outputs: Sequence[str], rows: int) -> None:
        self.names = outputs
        self.types = tuple(name[2:] for name in outputs[1::2])
        self.words = np.zeros((rows, len(outputs), len(outputs)), dtype=np.int32)
        self.entities = np.zeros((len(self.types), 3))

    def add(self, examples: Examples, batch: Batch, logits: Tensor) -> None:
        """Count the words and entities of a batch."""
        tagged = cast(WordExamples, examples)
        for index, predicted in zip(batch.indices, tagged.predicted(batch, logits), strict=True):
            truth = tagged.codes[tagged.offsets[index] : tagged.offsets[index + 1]]
            self.words[index] = confusion_matrix(truth, predicted, len(self.names))
            self.entities += entity_counts(
                [self.names[code] for code in truth],
                [self.names[code] for code in predicted],
                self.types,
            )

    def confusion(self, rows: npt.NDArray[np.bool_]) -> Counts:
        """Counts [tags, tags] of words."""
        total: Counts = self.words[rows].sum(0).astype(np.float64)
        return total

    def statistics(self) -> Counts | None:
        """True positives, false positives, false negatives [types, 3] of entities."""
        return self.entities

    def extra(self) -> dict[str, float]:
        """Nothing."""
        return {}


SCORING = Scoring(losses, Accumulator)
