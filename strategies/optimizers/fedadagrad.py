"""FedAdagrad (Reddi et al. 2021, "Adaptive federated optimization")."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from strategies import checks
from strategies.optimizers.schedule import check_schedule, scheduled
from strategies.stage import ServerOptimizer, State


@dataclass(frozen=True)
class FedAdagrad(ServerOptimizer):
    """``v <- v + update^2``; ``params + lr * m / (sqrt(v) + tau)``.

    Attributes:
        lr: learning rate.
        beta1: momentum of the update, 0 in the paper.
        tau: how adaptive: much larger than the updates' entries, the step is that of FedAvg.
        warmup_rounds, decay: see :func:`strategies.optimizers.schedule.scheduled`.
    """

    lr: float = 1e-2
    beta1: float = 0.0
    tau: float = 1e-8
    warmup_rounds: int = 0
    decay: float = 0.0

    def __post_init__(self) -> None:
        check_schedule(self.lr, self.warmup_rounds, self.decay)
        checks.number("beta1", self.beta1, 0.0, 1.0, below=True)
        checks.number("tau", self.tau, 0.0, above=True)

    def init(self, size: int) -> State:
        """Zero moments."""
        return {"m": torch.zeros(size), "v": torch.zeros(size)}

    def step(
        self, state: State, params: Tensor, update: Tensor, round: int, rounds: int
    ) -> tuple[Tensor, State]:
        """One step; ``round`` counts from 1."""
        lr = scheduled(self.lr, self.warmup_rounds, self.decay, round, rounds)
        m = torch.lerp(update, state["m"], self.beta1)
        v = torch.addcmul(state["v"], update, update)
        return torch.addcdiv(params, m, v.sqrt().add_(self.tau), value=lr), {"m": m, "v": v}
