"""IPM tuned against the rule in use (Shejwalkar and Houmansadr 2021; Allouah et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Generator, Tensor

from strategies.attacks.ipm import IPM
from strategies.attacks.kinds import Aggregate
from strategies.attacks.tuning import LineSearch, damage


@dataclass(frozen=True)
class OptimalIPM(LineSearch):
    """IPM with the tau that moves the rule's result farthest from the honest mean."""

    def craft(
        self, honest: Tensor, own: Tensor, aggregate: Aggregate, generator: Generator
    ) -> Tensor:
        """The worst rows that the line search finds."""

        def rows(tau: float) -> Tensor:
            return IPM(tau).craft(honest, own, aggregate, generator)

        return rows(self.maximise(lambda tau: damage(honest, rows(tau), aggregate)))
