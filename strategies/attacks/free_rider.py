"""Free rider: take the model, do no work (Fraboni et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from strategies import checks
from strategies.attacks.kinds import Aggregate


@dataclass(frozen=True)
class FreeRider:
    """Sends nothing, or noise as long as a real update.

    Attributes:
        disguise: length of the noise, as a multiple of the honest update's; 0 sends zeros.
    """

    disguise: float = 0.0

    def __post_init__(self) -> None:
        checks.number("disguise", self.disguise, 0.0)

    def craft(
        self, honest: Tensor, own: Tensor, aggregate: Aggregate, generator: Generator
    ) -> Tensor:
        """Zeros or scaled noise."""
        noise = torch.randn(own.shape, generator=generator)
        noise /= torch.linalg.vector_norm(noise, dim=1, keepdim=True)
        length = torch.linalg.vector_norm(honest, dim=1).median()
        return noise.mul_(self.disguise * length)
