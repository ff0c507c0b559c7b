"""Gaussian noise instead of an update (Blanchard et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from strategies import checks
from strategies.attacks.kinds import Aggregate


@dataclass(frozen=True)
class Gaussian:
    """Every entry is drawn from a normal distribution.

    Attributes:
        mean, sigma: of the distribution, in the units of the updates' entries (which are usually
            far below 1, so that the defaults drown them).
    """

    mean: float = 0.0
    sigma: float = 1.0

    def __post_init__(self) -> None:
        checks.number("mean", self.mean)
        checks.number("sigma", self.sigma, 0.0)

    def craft(
        self, honest: Tensor, own: Tensor, aggregate: Aggregate, generator: Generator
    ) -> Tensor:
        """Fresh noise for each malicious partner."""
        return torch.randn(own.shape, generator=generator).mul_(self.sigma).add_(self.mean)
