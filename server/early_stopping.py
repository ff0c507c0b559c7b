"""How long the global model has not become better, by the partners' validation losses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from server.checkpoint import Checkpoint


def with_losses(current: Checkpoint, losses: Sequence[float]) -> Checkpoint:
    """`current` with its count of stale rounds brought up to date.

    A round is stale when the incoming model's loss is not below the best so far.  The loss is the
    median over partners: the mean would let one of them decide when the run ends.

    Args:
        current: the run after the round.
        losses: the validation loss at each partner; those that are not finite are left out.
    """
    known = [loss for loss in losses if math.isfinite(loss)]
    loss = median(known) if known else math.inf
    if current.best_loss is None or loss < current.best_loss:
        return replace(current, best_loss=loss, stale_rounds=0)
    return replace(current, stale_rounds=current.stale_rounds + 1)
