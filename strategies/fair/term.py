"""TERM (Li et al. 2021, "Tilted empirical risk minimization")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from strategies import checks
from strategies.fair.capping import check_cap, column
from strategies.stage import FairWeights, State
from strategies.weights import cap_weights


@dataclass(frozen=True)
class TERM(FairWeights):
    """Weights in proportion to exp(t * loss), the gradient of ``log(mean(exp(t * loss))) / t``.

    Attributes:
        t: 0 is uniform; larger values favour the worse off, without end the worst alone.
        cap: largest weight of one partner.
    """

    t: float = 1.0
    cap: float = 0.4
    needs: ClassVar[tuple[str, ...]] = ("loss",)

    def __post_init__(self) -> None:
        checks.number("t", self.t, 0.0)
        check_cap(self.cap)

    def weights(
        self, metrics: Mapping[str, Mapping[str, float]], state: State
    ) -> tuple[Tensor, State]:
        """softmax(t * loss), capped."""
        losses = column(metrics, "loss")
        # Against the largest first: t * loss may overflow.
        return cap_weights(torch.softmax(self.t * (losses - losses.max()), 0), self.cap), state
