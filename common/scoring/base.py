"""Types that the scoring of every task has in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from common.examples.batch import Batch, Examples
from common.metrics import Counts


class MetricAccumulator(Protocol):
    """Counts of predictions, filled batch by batch."""

    def add(self, examples: Examples, batch: Batch, logits: Tensor) -> None:
        """Count a batch of `examples`; `logits` are float32 on the CPU."""

    def confusion(self, rows: npt.NDArray[np.bool_]) -> Counts:
        """The confusion matrix [true, predicted] of the examples that `rows` [n] selects."""

    def statistics(self) -> Counts | None:
        """The task's sufficient statistics over all examples, which add up over partners.

        None where the task has none.
        """

    def extra(self) -> dict[str, float]:
        """Figures that do not follow from sums: known for the server's own test set only."""


@dataclass(frozen=True)
class Scoring:
    """The arithmetic of one task.

    Attributes:
        losses: Logits and their batch to the loss of each example [n], float32.  Under privacy the
            gradient of each of these losses is clipped.
        accumulator: Names of the outputs and the number of examples to an empty accumulator.
    """

    losses: Callable[[Tensor, Batch], Tensor]
    accumulator: Callable[[Sequence[str], int], MetricAccumulator]


class ShareAccumulator:
    """Confusion matrices [2, 2] whose cells are shares of one example, so it counts as one."""

    def __init__(self, outputs: Sequence[str], rows: int) -> None:
        self.shares = np.zeros((rows, 2, 2))

    def confusion(self, rows: npt.NDArray[np.bool_]) -> Counts:
        """The sum over the chosen examples."""
        total: Counts = self.shares[rows].sum(0)
        return total

    def statistics(self) -> Counts | None:
        """None by default."""
        return None

    def extra(self) -> dict[str, float]:
        """Nothing by default."""
        return {}


def confusion_matrix(truth: npt.NDArray[Any], predicted: npt.NDArray[Any], classes: int) -> Counts:
    """Counts [true, predicted] of class numbers [n]."""
    flat = np.bincount(truth * classes + predicted, minlength=classes * classes)
    return flat.reshape(classes, classes).astype(np.float64)
