"""IPM: inner-product manipulation (Xie et al. 2020, "Fall of empires")."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Generator, Tensor

from strategies import checks
from strategies.attacks.kinds import Aggregate


@dataclass(frozen=True)
class IPM:
    """Every malicious row is ``-tau * mean(honest)``.

    A small tau hides near the honest rows and shortens the step; one above (n - f) / f turns the
    plain mean around.

    Attributes:
        tau: length, as a multiple of the honest mean's.
    """

    tau: float = 2.0

    def __post_init__(self) -> None:
        checks.number("tau", self.tau)

    def craft(
        self, honest: Tensor, own: Tensor, aggregate: Aggregate, generator: Generator
    ) -> Tensor:
        """The scaled honest mean, once for each malicious partner."""
        return (-self.tau * honest.mean(0)).expand_as(own)
