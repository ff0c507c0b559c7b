"""One pass over labelled rows: counts and a bounded loss, nothing that names a row."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from common.device import Device
from common.features import Examples, by_length
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
) -> Evaluation:
    """Evaluate the network as it stands on all rows.

    `groups` maps a column to its value per row, [n] of str.  The mean loss is the mean of each
    row's loss clipped to [0, the task's bound].
    """
    task, rows = network.task, len(examples)
    tally = task.tally(network.labels, rows)
    loss = 0.0
    network.suffix.eval()
    examples.ready(np.arange(rows))
    for chosen in by_length(examples.lengths, EVALUATION_TOKENS):
        batch = examples.__getitems__(chosen.tolist())
        with torch.inference_mode(), device.autocast(), device.products():
            logits = examples.logits(network, batch.to(device)).float().cpu()
        losses = task.losses(logits, batch).clamp(0.0, task.loss_bound)
        loss += float(losses.nan_to_num(task.loss_bound).sum())
        tally.add(examples, batch, logits)
    return Evaluation(
        confusion=tally.table(np.ones(rows, dtype=np.bool_)),
        groups={
            f"{column}={value}": tally.table(values == value)
            for column, values in groups.items()
            for value in np.unique(values)
        },
        loss=loss / rows if rows else math.nan,
        rows=rows,
        sums=tally.sums(),
        extra=tally.extra(),
    )
