"""The line search of tuned attacks (Shejwalkar and Houmansadr 2021)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from strategies import checks
from strategies.attacks.kinds import Aggregate


@dataclass(frozen=True)
class LineSearch:
    """Maximise over one number: stride out while it pays, then try ever smaller steps.

    Attributes:
        evaluations: calls of the rule in use.
        start, step: first point and first step.
        ratio: factor by which the step shrinks, in (0.5, 1).
    """

    evaluations: int = 20
    start: float = 0.0
    step: float = 10.0
    ratio: float = 0.8

    def __post_init__(self) -> None:
        checks.whole("evaluations", self.evaluations, 1)
        checks.number("start", self.start)
        checks.number("step", self.step)
        checks.number("ratio", self.ratio, 0.5, 1.0, above=True, below=True)

    def maximise(self, objective: Callable[[float], float]) -> float:
        """The best point met."""
        best, step = self.start, self.step
        value = objective(best)
        striding = True
        for _ in range(self.evaluations - 1):
            trial = objective(best + step)
            if trial > value:
                best, value = best + step, trial
                step *= 2 if striding else self.ratio
            else:
                striding = False
                step *= self.ratio
        return best


def damage(honest: Tensor, malicious: Tensor, aggregate: Aggregate) -> float:
    """How far the rule's result is from the honest mean when ``malicious`` rows join."""
    merged = aggregate(torch.cat([honest, malicious]))
    return float(torch.linalg.vector_norm(merged - honest.mean(0)))
