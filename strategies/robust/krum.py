"""Krum (Blanchard et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from strategies import checks
from strategies.rows import Rows
from strategies.stage import Context, RobustRule, RuleResult, State
from strategies.weights import selected_weights


@dataclass(frozen=True)
class Krum(RobustRule):
    """The one row whose n - f - 1 nearest others are nearest on average.

    Attributes:
        f: malicious partners to tolerate, n >= 2f + 3.
    """

    f: int = 1
    title: ClassVar[str] = "Krum"
    score_name: ClassVar[str | None] = "distance score"

    def __post_init__(self) -> None:
        checks.whole("f", self.f, 0)

    def check(self, n: int) -> None:
        """Raise UserError unless n >= 2f + 3."""
        checks.need("krum", n, self.f, 2 * self.f + 3, "n >= 2f+3")

    def apply(self, rows: Rows, weights: Tensor, state: State, context: Context) -> RuleResult:
        """The row that lies nearest to its neighbours; weights play no part."""
        scores = krum_scores(rows.distances, self.f)
        shares = selected_weights(weights, smallest(scores, 1))
        return RuleResult(rows.combine(shares), shares, scores, state)


def krum_scores(distances: Tensor, f: int) -> Tensor:
    """Mean squared distance of each row to its n - f - 1 nearest others, float64 [n].

    The count follows Farhadkhani et al. (2022), who prove the same resilience as for the n - f - 2
    of Blanchard et al. (2017).

    Args:
        distances: squared distances, float64 [n, n].
    """
    n = distances.shape[0]
    nearest = distances.sort(dim=1).values[:, 1 : n - f]
    return nearest.mean(1) if nearest.shape[1] else torch.zeros(n, dtype=distances.dtype)


def smallest(scores: Tensor, count: int) -> Tensor:
    """Indices of the ``count`` smallest scores, in order of rows."""
    return scores.argsort(stable=True)[:count].sort().values
