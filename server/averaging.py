"""Polyak averaging: the delivered model is the mean of the last global models."""

from __future__ import annotations

import torch
from torch import Tensor

from common.config import RunConfig
from server.checkpoint import AVERAGE, Checkpoint
from strategies.updates import Layout

SUM, COUNT = f"{AVERAGE}sum", f"{AVERAGE}count"


def averaged(
    state: dict[str, Tensor], params: Tensor, number: int, run: RunConfig
) -> dict[str, Tensor]:
    """The running sum after round `number`; empty before the rounds that are averaged.

    Args:
        state: the checkpoint's state before the round.
        params: the global parameters after the round, float32 [d].
        number: the round, from 1.
        run: `average_last` is the share of the rounds that are averaged.
    """
    if number <= run.rounds * (1.0 - run.average_last):
        return {}
    total = state.get(SUM, torch.zeros_like(params)) + params
    count = state.get(COUNT, torch.zeros(1)) + 1
    return {SUM: total, COUNT: count}


def delivered(current: Checkpoint, layout: Layout) -> dict[str, Tensor]:
    """The parameters that the run delivers: the average where there is one, else the last."""
    if SUM in current.state:
        return layout.unflatten(current.state[SUM] / current.state[COUNT])
    return current.parameters
