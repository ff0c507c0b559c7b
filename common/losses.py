"""The loss of one record, for every task: what is clipped under privacy, and averaged elsewhere."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# The class at places that carry none.
IGNORED = -100


def record_losses(logits: Tensor, labels: Tensor, owner: Tensor | None, records: int) -> Tensor:
    """Cross-entropy of each record, [records], float32.

    A text: `logits` [records, classes], `labels` [records], no `owner`.  Tagged words: `logits`
    [windows, tokens, classes], `labels` [windows, tokens], and `owner` [windows] says which record
    a window is part of; a record's loss is the mean over its words that have a class, 0 without
    any.  A mean within the record, so that a long one weighs no more than a short one.
    """
    if owner is None:
        return nn.functional.cross_entropy(logits.float(), labels, reduction="none")
    places = nn.functional.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none"
    ).view(labels.shape)
    zeros = torch.zeros(records, device=places.device)
    total = zeros.index_add(0, owner, places.sum(1))
    count = zeros.index_add(0, owner, (labels != IGNORED).sum(1).float())
    return total / count.clamp(min=1.0)


def per_record(gradients: Tensor, owner: Tensor | None, records: int) -> Tensor:
    """Gradients of records [records, ...] from those of their windows [windows, ...].

    The sum over a record's windows is its gradient, because its loss is a sum over them: clipped
    after this sum, a record has the influence of one, however many windows it fills.
    """
    if owner is None:
        return gradients
    zeros = gradients.new_zeros((records, *gradients.shape[1:]))
    return zeros.index_add(0, owner, gradients)
