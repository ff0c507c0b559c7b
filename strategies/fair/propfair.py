"""PropFair (Zhang et al. 2022, "Proportional fairness in federated learning")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from strategies import checks
from strategies.fair.capping import check_cap, column
from strategies.stage import FairWeights, State
from strategies.weights import cap_weights


@dataclass(frozen=True)
class PropFair(FairWeights):
    """Weights in proportion to 1 / (ceiling - loss), the gradient of ``sum_i log(M - loss_i)``.

    Attributes:
        ceiling: the paper's M, a loss that nobody should reach.
        margin: the paper's epsilon: nearer to the ceiling than this, the logarithm goes on as a
            straight line, so that its slope stays at 1 / margin.
        cap: largest weight of one partner.
    """

    ceiling: float = 5.0
    margin: float = 0.2
    cap: float = 0.4
    needs: ClassVar[tuple[str, ...]] = ("loss",)

    def __post_init__(self) -> None:
        checks.number("ceiling", self.ceiling, 0.0, above=True)
        checks.number("margin", self.margin, 0.0, above=True)
        check_cap(self.cap)

    def weights(
        self, metrics: Mapping[str, Mapping[str, float]], state: State
    ) -> tuple[Tensor, State]:
        """1 / max(ceiling - loss, margin), scaled and capped."""
        room = (self.ceiling - column(metrics, "loss")).clamp_min(self.margin)
        return cap_weights(1 / room, self.cap), state
