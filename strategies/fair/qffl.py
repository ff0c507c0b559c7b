"""q-FFL (Li et al. 2020, "Fair resource allocation in federated learning")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from strategies import checks
from strategies.fair.capping import check_cap, column
from strategies.stage import FairWeights, State
from strategies.weights import cap_weights

SMALLEST_LOSS = 1e-10


@dataclass(frozen=True)
class QFFL(FairWeights):
    """Weights in proportion to loss^q, the gradient of ``sum_i loss_i^(q+1) / (q+1)``.

    The paper's step size (a Lipschitz estimate) is left to the server optimiser: only the
    direction is taken.

    Attributes:
        q: 0 is uniform; larger values favour the worse off.
        cap: largest weight of one partner.
    """

    q: float = 1.0
    cap: float = 0.4
    needs: ClassVar[tuple[str, ...]] = ("loss",)

    def __post_init__(self) -> None:
        checks.number("q", self.q, 0.0)
        check_cap(self.cap)

    def weights(
        self, metrics: Mapping[str, Mapping[str, float]], state: State
    ) -> tuple[Tensor, State]:
        """loss^q, scaled and capped."""
        losses = column(metrics, "loss").clamp_min(SMALLEST_LOSS)
        # Dividing by the largest first keeps a large q from overflowing.
        return cap_weights((losses / losses.max()) ** self.q, self.cap), state
