"""FedAdam (Reddi et al. 2021; Kingma and Ba 2015)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from strategies import checks
from strategies.optimizers.schedule import check_schedule, scheduled
from strategies.stage import ServerOptimizer, State


@dataclass(frozen=True)
class FedAdam(ServerOptimizer):
    """Adam at the server on the merged update.

    With ``bias_correction`` it is Adam as Kingma and Ba wrote it, step for step that of
    ``torch.optim.Adam``.  Without, and with ``tau`` 1e-3, it is Algorithm 2 of Reddi et al.

    Attributes:
        lr, beta1, beta2: learning rate, decay of the first and of the second moment.
        tau: added to the root of the second moment (Adam's epsilon).
        bias_correction: undo the pull of the zero start on both moments.
        warmup_rounds, decay: see :func:`strategies.optimizers.schedule.scheduled`.
    """

    lr: float = 1e-2
    beta1: float = 0.9
    beta2: float = 0.999
    tau: float = 1e-8
    bias_correction: bool = True
    warmup_rounds: int = 0
    decay: float = 0.0

    def __post_init__(self) -> None:
        check_schedule(self.lr, self.warmup_rounds, self.decay)
        checks.number("beta1", self.beta1, 0.0, 1.0, below=True)
        checks.number("beta2", self.beta2, 0.0, 1.0, below=True)
        checks.number("tau", self.tau, 0.0, above=True)

    def init(self, size: int) -> State:
        """Zero moments, no step yet."""
        return {"m": torch.zeros(size), "v": torch.zeros(size), "t": torch.zeros(())}

    def step(
        self, state: State, params: Tensor, update: Tensor, round: int, rounds: int
    ) -> tuple[Tensor, State]:
        """One step; ``round`` counts from 1 and sets the rate, steps set the bias correction."""
        lr = scheduled(self.lr, self.warmup_rounds, self.decay, round, rounds)
        t = int(state["t"]) + 1
        m = torch.lerp(update, state["m"], self.beta1)
        v = torch.mul(state["v"], self.beta2).addcmul_(update, update, value=1 - self.beta2)
        root = v.sqrt()
        if self.bias_correction:
            root.div_(math.sqrt(1 - self.beta2**t))
            lr /= 1 - self.beta1**t
        moved = torch.addcdiv(params, m, root.add_(self.tau), value=lr)
        return moved, {"m": m, "v": v, "t": torch.tensor(float(t))}
