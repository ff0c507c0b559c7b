"""Cross-entropy and gradients of records, which may be read in several windows.

The gradient of a record's loss is what is clipped under privacy.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# The class at positions that have none.
IGNORED = -100


def record_losses(logits: Tensor, labels: Tensor, owner: Tensor | None, records: int) -> Tensor:
    """Cross-entropy of each record, [records], float32.

    Without `owner` every record has one label.  With it, the loss of a record is the mean over its
    labelled tokens (0 without any), so that a long record weighs no more than a short one.

    Args:
        logits: [records, classes], or with `owner` [windows, tokens, classes].
        labels: [records], or with `owner` [windows, tokens].
        owner: The record of each window, [windows].
        records: The number of records.
    """
    if owner is None:
        return nn.functional.cross_entropy(logits.float(), labels, reduction="none")
    each = nn.functional.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none"
    ).view(labels.shape)
    zeros = torch.zeros(records, device=each.device)
    total = zeros.index_add(0, owner, each.sum(1))
    count = zeros.index_add(0, owner, (labels != IGNORED).sum(1).float())
    return total / count.clamp(min=1.0)


def per_record(gradients: Tensor, owner: Tensor | None, records: int) -> Tensor:
    """Gradients of records [records, ...] from those of their windows [windows, ...].

    A record's loss is a sum over its windows, so its gradient is too.  Clipping comes after this
    sum: a record then has the influence of one record, however many windows it fills.
    """
    if owner is None:
        return gradients
    zeros = gradients.new_zeros((records, *gradients.shape[1:]))
    return zeros.index_add(0, owner, gradients)
