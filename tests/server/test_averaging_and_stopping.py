"""The two decisions that look back over rounds: what is delivered, and when to stop."""

from __future__ import annotations

import math

import pytest
import torch

from common.config import RunConfig
from results.history import History
from server.averaging import averaged, delivered
from server.checkpoint import Checkpoint
from server.early_stopping import with_losses
from strategies.updates import Layout


def checkpoint(**fields: object) -> Checkpoint:
    empty = Checkpoint(0, "run", "hash", {"w": torch.zeros(2)}, {}, History())
    return Checkpoint(**{**vars(empty), **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("share", "wanted"), [(0.0, 4.0), (0.25, 4.0), (0.5, 3.5), (0.6, 3.0), (1.0, 2.5)]
)
def test_the_last_rounds_are_averaged(share: float, wanted: float) -> None:
    """Round n has the parameters n; of four rounds those after the first 4 (1 - share) count."""
    run, state = RunConfig(rounds=4, average_last=share), {}
    for number in range(1, 5):
        state = averaged(state, torch.full((2,), float(number)), number, run)
    last = checkpoint(parameters={"w": torch.full((2,), 4.0)}, state=state)
    assert delivered(last, Layout.of(last.parameters))["w"].tolist() == [wanted] * 2


def test_a_lower_median_loss_ends_a_streak_of_stale_rounds() -> None:
    current = checkpoint()
    streaks = []
    for losses in ([0.5, 0.9, 0.1], [0.6, 0.4, 0.5], [math.nan, 0.6], [], [0.4]):
        current = with_losses(current, losses)
        streaks.append((current.stale_rounds, current.best_loss))
    assert streaks == [(0, 0.5), (1, 0.5), (2, 0.5), (3, 0.5), (0, 0.4)]
