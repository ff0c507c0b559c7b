"""Every partner counts the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from strategies.stage import FairWeights, State


@dataclass(frozen=True)
class Uniform(FairWeights):
    """Weights 1/n: nothing that a partner says about itself counts."""

    needs: ClassVar[tuple[str, ...]] = ()
    cap: float = field(default=0.0, init=False)

    def check(self, n: int) -> None:
        """Nothing can be wrong."""

    def weights(
        self, metrics: Mapping[str, Mapping[str, float]], state: State
    ) -> tuple[Tensor, State]:
        """1/n for each."""
        n = len(metrics)
        return torch.full((n,), 1 / n, dtype=torch.float64), state
