"""FedAvg (McMahan et al. 2017): add the update, times a learning rate."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from strategies.optimizers.schedule import check_schedule, scheduled
from strategies.stage import ServerOptimizer, State


@dataclass(frozen=True)
class FedAvg(ServerOptimizer):
    """``params + lr * update``.

    Attributes:
        lr: learning rate; 1 is plain federated averaging.
        warmup_rounds, decay: see :func:`strategies.optimizers.schedule.scheduled`.
    """

    lr: float = 1.0
    warmup_rounds: int = 0
    decay: float = 0.0

    def __post_init__(self) -> None:
        check_schedule(self.lr, self.warmup_rounds, self.decay)

    def step(
        self, state: State, params: Tensor, update: Tensor, round: int, rounds: int
    ) -> tuple[Tensor, State]:
        """One step; ``round`` counts from 1."""
        lr = scheduled(self.lr, self.warmup_rounds, self.decay, round, rounds)
        return torch.add(params, update, alpha=lr), state
