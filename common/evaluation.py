"""One pass over labelled rows: counts and a bounded loss, nothing that names a row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from common.device import Device
from common.features import Examples, by_length
from common.losses import record_losses
from common.metrics import Counts, accuracy
from common.model import Network
from common.tags import spans
from common.words import WordExamples

# The loss of one row is clipped here, so that one row cannot move a mean without bound.
LOSS_BOUND = 4.0
EVALUATION_TOKENS = 4096


@dataclass(frozen=True)
class Evaluation:
    """`confusion` [true, predicted]; `groups` the same per "column=value"; `loss` a mean.

    Confusions count rows, or the words of tagged rows.
    """

    confusion: Counts
    groups: dict[str, Counts]
    loss: float
    rows: int
    # Of tagged rows: true positives, false positives and false negatives of each type, [types, 3].
    entities: Counts | None = None

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
    if isinstance(examples, WordExamples):
        return _evaluate_words(network, examples, groups, device)
    classes = len(network.labels)
    predicted = np.zeros(len(examples), dtype=np.int64)
    truth = np.zeros(len(examples), dtype=np.int64)
    loss = 0.0
    network.suffix.eval()
    for chosen in by_length(examples.lengths, EVALUATION_TOKENS):
        batch = examples.__getitems__(chosen.tolist())
        with torch.inference_mode(), device.autocast():
            logits = examples.logits(network, batch.to(device.device)).float().cpu()
        rows = record_losses(logits, batch.labels, batch.owner, len(batch))
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


def _evaluate_words(
    network: Network, examples: WordExamples, groups: Mapping[str, np.ndarray], device: Device
) -> Evaluation:
    classes = len(network.labels)
    types = tuple(name[2:] for name in network.labels[1::2])
    tables = np.zeros((len(examples), classes, classes), dtype=np.int32)
    entities = np.zeros((len(types), 3))
    loss = 0.0
    network.suffix.eval()
    for chosen in by_length(examples.lengths, EVALUATION_TOKENS):
        batch = examples.__getitems__(chosen.tolist())
        with torch.inference_mode(), device.autocast():
            logits = examples.logits(network, batch.to(device.device)).float().cpu()
        rows = record_losses(logits, batch.labels, batch.owner, len(batch))
        loss += float(rows.clamp(0.0, LOSS_BOUND).nan_to_num(LOSS_BOUND).sum())
        for index, predicted in zip(batch.indices, examples.predicted(batch, logits), strict=True):
            truth = examples.codes[examples.offsets[index] : examples.offsets[index + 1]]
            tables[index] = _confusion(truth, predicted, classes)
            entities += entity_counts(
                [network.labels[code] for code in truth],
                [network.labels[code] for code in predicted],
                types,
            )
    by_group = {
        f"{column}={value}": tables[values == value].sum(0).astype(np.float64)
        for column, values in groups.items()
        for value in np.unique(values)
    }
    mean = loss / len(examples) if len(examples) else math.nan
    total = tables.sum(0).astype(np.float64)
    return Evaluation(total, by_group, mean, len(examples), entities)


def entity_counts(truth: Sequence[str], predicted: Sequence[str], types: Sequence[str]) -> Counts:
    """True positives, false positives, false negatives [types, 3] of one row's BIO tags.

    An entity is found where its type and both its ends are right (CoNLL-2003).
    """
    wanted, given = set(spans(truth)), set(spans(predicted))
    counts = np.zeros((len(types), 3))
    for column, found in enumerate((wanted & given, given - wanted, wanted - given)):
        for kind, _, _ in found:
            counts[types.index(kind), column] += 1
    return counts


def _confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> Counts:
    flat = np.bincount(truth * classes + predicted, minlength=classes * classes)
    return flat.reshape(classes, classes).astype(np.float64)
