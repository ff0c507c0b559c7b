"""FedYogi (Reddi et al. 2021; Zaheer et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from strategies import checks
from strategies.optimizers.schedule import check_schedule, scheduled
from strategies.stage import ServerOptimizer, State


@dataclass(frozen=True)
class FedYogi(ServerOptimizer):
    """Adam whose second moment moves by a bounded amount: ``v - (1 - beta2) u^2 sign(v - u^2)``.

    Attributes:
        lr, beta1, beta2: learning rate, decay of the first and of the second moment.
        tau: added to the root of the second moment.
        warmup_rounds, decay: see :func:`strategies.optimizers.schedule.scheduled`.
    """

    lr: float = 1e-2
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-8
    warmup_rounds: int = 0
    decay: float = 0.0

    def __post_init__(self) -> None:
        check_schedule(self.lr, self.warmup_rounds, self.decay)
        checks.number("beta1", self.beta1, 0.0, 1.0, below=True)
        checks.number("beta2", self.beta2, 0.0, 1.0, below=True)
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
        square = update * update
        v = torch.addcmul(
            state["v"], square, torch.sign(state["v"] - square), value=-(1 - self.beta2)
        )
        return torch.addcdiv(params, m, v.sqrt().add_(self.tau), value=lr), {"m": m, "v": v}
