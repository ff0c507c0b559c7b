"""CAF: covariance-bound agnostic filter (Allouah et al. 2025)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from strategies import checks
from strategies.rows import Rows
from strategies.stage import Context, RobustRule, RuleResult, State


@dataclass(frozen=True)
class CAF(RobustRule):
    """Filter rows along the direction in which they vary most, keep the least varied mean.

    The leading direction comes from the n x n distances, exactly and without a random start.

    Attributes:
        f: malicious partners to tolerate, n > 2f.
    """

    f: int = 1
    title: ClassVar[str] = "CAF"
    score_name: ClassVar[str | None] = "filtered fraction"

    def __post_init__(self) -> None:
        checks.whole("f", self.f, 0)

    def check(self, n: int) -> None:
        """Raise UserError unless n > 2f."""
        checks.majority("caf", n, self.f)

    def apply(self, rows: Rows, weights: Tensor, state: State, context: Context) -> RuleResult:
        """The weighted mean under the filter's coefficients."""
        filtered = filter_coefficients(rows.distances, self.f)
        shares = filtered * weights.double()
        total = shares.sum()
        shares = shares / total if total > 0 else filtered / filtered.sum()
        return RuleResult(rows.combine(shares), shares, 1 - filtered, state)


def filter_coefficients(distances: Tensor, f: int) -> Tensor:
    """Coefficients in [0, 1] of the rows at the least spectral norm that the filter met.

    While more than n - 2f of the mass is left: centre, take the leading eigenvector of the
    weighted covariance, and shrink each row by its squared projection over the largest one of
    those still in.  (ByzFL 0.0.11 takes the largest of all, filtered or not: one row far enough
    away then stops all progress.)  Ends after at most n steps, each of which takes a row out.

    Args:
        distances: squared distances between the rows, float64 [n, n].
    """
    n = distances.shape[0]
    mass = torch.ones(n, dtype=torch.float64)
    best, least = mass, float("inf")
    while float(mass.sum()) > n - 2 * f:
        share = mass / mass.sum()
        # Inner products around the weighted mean, in which what the rows have in common is gone.
        toward = distances @ share
        centred = (toward[:, None] + toward[None, :] - distances - share @ toward) / 2
        root = share.sqrt()
        values, vectors = torch.linalg.eigh(root[:, None] * centred * root[None, :])
        spread = float(values[-1])
        if spread < least:
            best, least = mass, spread
        # |direction| = sqrt(spread); the scale cancels in the ratio below.
        projections = (centred @ (root * vectors[:, -1])) ** 2
        projections = torch.where(mass > 0, projections, 0.0)
        largest = float(projections.max())
        if spread <= 0 or largest <= 0:
            break
        mass = mass * (1 - projections / largest)
    return best
