"""FedAvgM (Hsu et al. 2019): heavy-ball momentum at the server."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from strategies import checks
from strategies.optimizers.schedule import check_schedule, scheduled
from strategies.stage import ServerOptimizer, State


@dataclass(frozen=True)
class FedAvgM(ServerOptimizer):
    """``m <- momentum * m + update``; ``params + lr * m``.

    Attributes:
        lr, momentum: learning rate and momentum in [0, 1).
        warmup_rounds, decay: see :func:`strategies.optimizers.schedule.scheduled`.
    """

    lr: float = 1.0
    momentum: float = 0.9
    warmup_rounds: int = 0
    decay: float = 0.0

    def __post_init__(self) -> None:
        check_schedule(self.lr, self.warmup_rounds, self.decay)
        checks.number("momentum", self.momentum, 0.0, 1.0, below=True)

    def init(self, size: int) -> State:
        """Zero momentum."""
        return {"m": torch.zeros(size)}

    def step(
        self, state: State, params: Tensor, update: Tensor, round: int, rounds: int
    ) -> tuple[Tensor, State]:
        """One step; ``round`` counts from 1."""
        lr = scheduled(self.lr, self.warmup_rounds, self.decay, round, rounds)
        momentum = torch.add(update, state["m"], alpha=self.momentum)
        return torch.add(params, momentum, alpha=lr), {"m": momentum}
