"""Sign flip: push against what the honest partners agree on (Li et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Generator, Tensor

from strategies import checks
from strategies.attacks.kinds import Aggregate


@dataclass(frozen=True)
class SignFlip:
    """Every malicious row is ``-scale * mean(honest)``.

    Attributes:
        scale: length, as a multiple of the honest mean's.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        checks.number("scale", self.scale, 0.0, above=True)

    def craft(
        self, honest: Tensor, own: Tensor, aggregate: Aggregate, generator: Generator
    ) -> Tensor:
        """The negated honest mean, once for each malicious partner."""
        return (-self.scale * honest.mean(0)).expand_as(own)
