"""Mimic: all malicious partners copy one honest partner (Karimireddy et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Generator, Tensor

from common.errors import UserError
from strategies import checks
from strategies.attacks.kinds import Aggregate


@dataclass(frozen=True)
class Mimic:
    """Over-represents one partner, and so silences others; nothing looks malicious.

    Attributes:
        target: place of the copied partner among the honest ones, from 0.
    """

    target: int = 0

    def __post_init__(self) -> None:
        checks.whole("target", self.target, 0)

    def craft(
        self, honest: Tensor, own: Tensor, aggregate: Aggregate, generator: Generator
    ) -> Tensor:
        """Copies of the target's row."""
        if self.target >= len(honest):
            raise UserError(f"attack.target: must be below {len(honest)} honest partners")
        return honest[self.target].expand_as(own)
