"""FairFed (Ezzeldin et al. 2023, "FairFed: enabling group fairness in federated learning")."""

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
class FairFed(FairWeights):
    """Weights that move towards partners whose group gap is near to the global one.

    ``w_i <- w_i - beta * (|G - gap_i| - mean_j |G - gap_j|)``, cut at 0 and scaled; G is the
    mean of the gaps under the present weights, a stand-in for the gap on pooled data, which no
    server has.  A partner without two groups to compare has no gap; as in the paper, its distance
    is then that of its accuracy from the mean accuracy.  Weights start from the (capped) numbers
    of rows.

    Attributes:
        beta: step size; 0 keeps the weights by rows.
        cap: largest weight of one partner.
    """

    beta: float = 1.0
    cap: float = 0.4
    needs: ClassVar[tuple[str, ...]] = ("accuracy", "examples")

    def __post_init__(self) -> None:
        checks.number("beta", self.beta, 0.0)
        check_cap(self.cap)

    def init(self) -> State:
        """Empty: a partner enters with its number of rows when first heard."""
        return {}

    def weights(
        self, metrics: Mapping[str, Mapping[str, float]], state: State
    ) -> tuple[Tensor, State]:
        """The moved weights, capped; the state holds them, relative to the partners heard."""
        counts = cap_weights(column(metrics, "examples").clamp_min(1.0), self.cap)
        known = [state.get(name, counts[i]) for i, name in enumerate(metrics)]
        mass = torch.stack(known)
        total = float(mass.sum())
        before = mass / total if total > 0 else counts
        distance = _from_mean(before, column(metrics, "accuracy"))
        told = torch.tensor(["gap" in partner for partner in metrics.values()])
        if bool(told.any()):
            gaps = torch.tensor([m["gap"] for m in metrics.values() if "gap" in m]).double()
            distance[told] = _from_mean(before[told], gaps)
        moved = (before - self.beta * (distance - distance.mean())).clamp_min(0.0)
        after = cap_weights(moved if float(moved.sum()) > 0 else counts, self.cap)
        scale = total if total > 0 else 1.0
        return after, {**state, **dict(zip(metrics, (after * scale).unbind(), strict=True))}


def _from_mean(weights: Tensor, values: Tensor) -> Tensor:
    """Distances from the weighted mean; from the plain one where all weights are 0."""
    total = float(weights.sum())
    mean = weights @ values / total if total > 0 else values.mean()
    return (values - mean).abs()
