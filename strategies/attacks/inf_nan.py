"""Infinities or NaNs, by malice or by a broken machine."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from strategies.attacks.kinds import Aggregate


@dataclass(frozen=True)
class InfNan:
    """Every entry is infinite, or not a number.

    Attributes:
        value: ``inf``, ``-inf`` or ``nan``.
    """

    value: str = "inf"

    def __post_init__(self) -> None:
        if self.value not in ("inf", "-inf", "nan"):
            raise ValueError(f"value: must be inf, -inf or nan, got {self.value!r}")

    def craft(
        self, honest: Tensor, own: Tensor, aggregate: Aggregate, generator: Generator
    ) -> Tensor:
        """Rows full of the value."""
        return torch.full_like(own, float(self.value))
