"""AFL (Mohri et al. 2019, "Agnostic federated learning")."""

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
class AFL(FairWeights):
    """Weights that climb towards the worst mixture of partners: minimax over mixtures.

    Each round adds ``lr * loss`` to the mixture of the partners that replied, and projects it back
    onto the mass that they held before; partners that were not heard keep theirs.

    Attributes:
        lr: step size of the mixture.
        cap: largest weight of one partner.
    """

    lr: float = 0.1
    cap: float = 0.4
    needs: ClassVar[tuple[str, ...]] = ("loss",)

    def __post_init__(self) -> None:
        checks.number("lr", self.lr, 0.0)
        check_cap(self.cap)

    def init(self) -> State:
        """Empty: a partner enters with mass 1 (relative to the others) when first heard."""
        return {}

    def weights(
        self, metrics: Mapping[str, Mapping[str, float]], state: State
    ) -> tuple[Tensor, State]:
        """The mixture after this round's step, capped; the state holds it uncapped."""
        start = torch.ones((), dtype=torch.float64)
        mass = torch.stack([state.get(name, start) for name in metrics])
        total = float(mass.sum())
        if total <= 0:
            mass, total = torch.ones_like(mass), float(len(mass))
        mixture = project_to_simplex(mass / total + self.lr * column(metrics, "loss"))
        moved = dict(zip(metrics, (mixture * total).unbind(), strict=True))
        return cap_weights(mixture, self.cap), {**state, **moved}


def project_to_simplex(point: Tensor) -> Tensor:
    """The nearest vector with entries >= 0 that sum to 1 (Duchi et al. 2008)."""
    ordered = point.sort(descending=True).values
    excess = (ordered.cumsum(0) - 1) / torch.arange(1, len(point) + 1, dtype=point.dtype)
    last = int((ordered > excess).sum()) - 1
    return (point - excess[last]).clamp_min(0.0)
