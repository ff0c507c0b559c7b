"""ALIE: "a little is enough" (Baruch et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Generator, Tensor

from strategies import checks
from strategies.attacks.kinds import Aggregate


@dataclass(frozen=True)
class ALIE:
    """Every malicious row is ``mean + tau * std`` of the honest rows, coordinate by coordinate.

    Attributes:
        tau: how many standard deviations to hide behind.
    """

    tau: float = 1.5

    def __post_init__(self) -> None:
        checks.number("tau", self.tau)

    def craft(
        self, honest: Tensor, own: Tensor, aggregate: Aggregate, generator: Generator
    ) -> Tensor:
        """The shifted honest mean, once for each malicious partner (needs two honest ones)."""
        return (honest.mean(0) + self.tau * honest.std(0)).expand_as(own)
