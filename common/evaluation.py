"""Evaluation: counts and a bounded loss of labelled examples, nothing about a single one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from common.device import Device
from common.examples.batch import Examples, Ints, by_length
from common.groups import group_key
from common.metrics import Counts, accuracy
from common.models.network import Network
from common.scoring import MetricAccumulator, scoring_of
from common.tasks import Measured

EVALUATION_TOKENS = 4096


@dataclass(frozen=True)
class Evaluation:
    """The result of evaluating a network on some examples.

    Attributes:
        confusion: Counts [true, predicted]; the task says what is counted (`common.tasks`).
        groups: The same for each group, by "column=value".
        loss: The mean of each example's loss, clipped to [0, the task's bound].
        rows: The number of examples.
        sums: The task's sufficient statistics, which add up over partners; None without any.
        extra: Figures that do not follow from sums: kept for the server's own test set only.
    """

    confusion: Counts
    groups: dict[str, Counts]
    loss: float
    rows: int
    sums: Counts | None = None
    extra: dict[str, float] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        """The share of examples predicted right."""
        return accuracy(self.confusion)

    @property
    def measured(self) -> Measured:
        """The counts and loss that the task's figures are computed from."""
        return Measured(self.confusion, self.sums, self.loss)


def evaluate(
    network: Network,
    examples: Examples,
    groups: Mapping[str, np.ndarray],
    device: Device,
    on_error: Callable[[Exception], None] | None = None,
) -> Evaluation:
    """Evaluate a network on all examples.

    Args:
        network: The network, whose trained layers are put into evaluation mode.
        examples: n examples.
        groups: For each group column, the value of every example, [n] of str.
        device: Where and in which precision it runs.
        on_error: If given, it receives an error in the place of the caller.  The examples of the
            batch are then evaluated one by one, and one that fails alone gets the largest loss and
            the count of an example that was never measured.  So the contribution of an example is a
            function of that example, whatever happens in its batch.
    """
    rows = len(examples)
    accumulator = scoring_of(network.task).accumulator(network.labels, rows)
    loss = _Pass(network, examples, device, accumulator, on_error).run()
    return Evaluation(
        confusion=accumulator.confusion(np.ones(rows, dtype=np.bool_)),
        groups={
            group_key(column, value): accumulator.confusion(values == value)
            for column, values in groups.items()
            for value in np.unique(values)
        },
        loss=loss / rows if rows else math.nan,
        rows=rows,
        sums=accumulator.statistics(),
        extra=accumulator.extra(),
    )


@dataclass(frozen=True)
class _Pass:
    """One pass over examples, which counts their predictions in `accumulator`."""

    network: Network
    examples: Examples
    device: Device
    accumulator: MetricAccumulator
    on_error: Callable[[Exception], None] | None

    def run(self) -> float:
        """Count all examples and return the sum of their clipped losses."""
        self.network.trained.eval()
        try:
            self.examples.ready(np.arange(len(self.examples)))
        except Exception as error:
            if self.on_error is None:
                raise
            self.on_error(error)
        parts = by_length(self.examples.lengths, EVALUATION_TOKENS)
        return sum(self._tolerant(chosen) for chosen in parts)

    def _tolerant(self, chosen: Ints) -> float:
        """`_count`; if that fails, and errors are tolerated, of one example after the other."""
        try:
            return self._count(chosen)
        except Exception as error:
            if self.on_error is None:
                raise
            self.on_error(error)
        if len(chosen) == 1:
            return self.network.task.loss_bound
        return math.fsum(self._tolerant(chosen[i : i + 1]) for i in range(len(chosen)))

    def _count(self, chosen: Ints) -> float:
        """Count some examples and return the sum of their clipped losses."""
        task, batch = self.network.task, self.examples.__getitems__(chosen.tolist())
        with torch.inference_mode(), self.device.autocast(), self.device.products():
            logits = self.examples.logits(self.network, batch.to(self.device)).float().cpu()
        losses = scoring_of(task).losses(logits, batch).clamp(0.0, task.loss_bound)
        self.accumulator.add(self.examples, batch, logits)
        return float(losses.nan_to_num(task.loss_bound).sum())
