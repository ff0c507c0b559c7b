"""One pass over labelled rows: counts and a bounded loss, nothing that names a row."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from common.device import Device
from common.features import Examples, Ints, by_length
from common.groups import group_key
from common.metrics import Counts, accuracy
from common.model import Network
from common.tasks import LOSS_BOUND, Measured
from common.tasks.ner import entity_counts

__all__ = ["EVALUATION_TOKENS", "LOSS_BOUND", "Evaluation", "entity_counts", "evaluate"]
EVALUATION_TOKENS = 4096


@dataclass(frozen=True)
class Evaluation:
    """`confusion` [true, predicted]; `groups` the same per "column=value"; `loss` a mean.

    What confusions count, `sums` and `extra` are the task's own (`common.tasks`): `sums` add up
    over partners, `extra` is told of the server's rows alone.
    """

    confusion: Counts
    groups: dict[str, Counts]
    loss: float
    rows: int
    sums: Counts | None = None
    extra: dict[str, float] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        """Share of rows predicted right."""
        return accuracy(self.confusion)

    @property
    def measured(self) -> Measured:
        """What the task's figures are made from."""
        return Measured(self.confusion, self.sums, self.loss)


def evaluate(
    network: Network,
    examples: Examples,
    groups: Mapping[str, np.ndarray],
    device: Device,
    on_error: Callable[[Exception], None] | None = None,
) -> Evaluation:
    """Evaluate the network as it stands on all rows.

    `groups` maps a column to its value per row, [n] of str.  The mean loss is the mean of each
    row's loss clipped to [0, the task's bound].

    An error is raised, unless `on_error` takes it: then the rows of the batch are evaluated one by
    one, and one that fails alone has the largest loss and the count of a row that was never
    measured.  So what a row adds stays a function of that row, whatever its batch does.
    """
    task, rows = network.task, len(examples)
    tally = task.tally(network.labels, rows)

    def measured(chosen: Ints) -> float:
        """The sum of the losses of some rows, which are counted."""
        batch = examples.__getitems__(chosen.tolist())
        with torch.inference_mode(), device.autocast(), device.products():
            logits = examples.logits(network, batch.to(device)).float().cpu()
        losses = task.losses(logits, batch).clamp(0.0, task.loss_bound)
        tally.add(examples, batch, logits)
        return float(losses.nan_to_num(task.loss_bound).sum())

    def tolerated(chosen: Ints) -> float:
        try:
            return measured(chosen)
        except Exception as error:
            if on_error is None:
                raise
            on_error(error)
        if len(chosen) == 1:
            return task.loss_bound
        return math.fsum(tolerated(chosen[i : i + 1]) for i in range(len(chosen)))

    network.suffix.eval()
    try:
        examples.ready(np.arange(rows))
    except Exception as error:
        if on_error is None:
            raise
        on_error(error)
    parts = by_length(examples.lengths, EVALUATION_TOKENS)
    loss = sum(tolerated(chosen) for chosen in parts)
    return Evaluation(
        confusion=tally.table(np.ones(rows, dtype=np.bool_)),
        groups={
            group_key(column, value): tally.table(values == value)
            for column, values in groups.items()
            for value in np.unique(values)
        },
        loss=loss / rows if rows else math.nan,
        rows=rows,
        sums=tally.sums(),
        extra=tally.extra(),
    )
