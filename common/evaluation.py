"""One pass over labelled rows: counts and a bounded loss, nothing that names a row."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from common.device import Device
from common.features import Examples, by_length
from common.metrics import Counts, accuracy
from common.model import Network

# The loss of one row is clipped here, so that one row cannot move a mean without bound.
LOSS_BOUND = 4.0
EVALUATION_TOKENS = 4096


@dataclass(frozen=True)
class Evaluation:
    """`confusion` [true, predicted]; `groups` the same per "column=value"; `loss` a mean."""

    confusion: Counts
    groups: dict[str, Counts]
    loss: float
    rows: int

    @property
    def accuracy(self) -> float:
        """Share of rows predicted right."""
        return accuracy(self.confusion)


def evaluate(
    network: Network,
    examples: Examples,
    groups: Mapping[str, np.ndarray],
    device: Device,
) -> Evaluation:
    """Evaluate the network as it stands on all rows.

    `groups` maps a column to its value per row, [n] of str.  The mean loss is the mean of each
    row's cross-entropy clipped to [0, LOSS_BOUND].
    """
    classes = len(network.labels)
    predicted = np.zeros(len(examples), dtype=np.int64)
    truth = np.zeros(len(examples), dtype=np.int64)
    loss = 0.0
    network.suffix.eval()
    for chosen in by_length(examples.lengths, EVALUATION_TOKENS):
        batch = examples.__getitems__(chosen.tolist())
        with torch.inference_mode(), device.autocast():
            logits = examples.logits(network, batch.to(device.device)).float().cpu()
        rows = nn.functional.cross_entropy(logits, batch.labels, reduction="none")
        loss += float(rows.clamp(0.0, LOSS_BOUND).nan_to_num(LOSS_BOUND).sum())
        predicted[batch.indices] = logits.argmax(1).numpy()
        truth[batch.indices] = batch.labels.numpy()
    by_group = {
        f"{column}={value}": _confusion(truth[values == value], predicted[values == value], classes)
        for column, values in groups.items()
        for value in np.unique(values)
    }
    mean = loss / len(examples) if len(examples) else math.nan
    return Evaluation(_confusion(truth, predicted, classes), by_group, mean, len(examples))


def _confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> Counts:
    flat = np.bincount(truth * classes + predicted, minlength=classes * classes)
    return flat.reshape(classes, classes).astype(np.float64)
