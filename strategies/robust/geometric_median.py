"""The smoothed geometric median (Weiszfeld 1937; Pillutla et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from strategies import checks
from strategies.rows import Rows
from strategies.stage import Context, RobustRule, RuleResult, State


@dataclass(frozen=True)
class GeometricMedian(RobustRule):
    """The point with the least weighted sum of distances to the rows.

    Weiszfeld's iterations run on the n x n distances alone; the columns are touched once, for the
    final combination.

    Attributes:
        f: malicious partners to tolerate; used to check n > 2f and f * cap < 1/2.
        smoothing: distances below this multiple of the rows' usual distance count as this much.
        iterations: at most so many; they stop when no coefficient moves by 1e-10.
    """

    f: int = 1
    smoothing: float = 1e-6
    iterations: int = 1000
    title: ClassVar[str] = "The geometric median"
    score_name: ClassVar[str | None] = "distance to the geometric median"
    breaks_at_half_weight: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.whole("f", self.f, 0)
        checks.whole("iterations", self.iterations, 1)
        checks.number("smoothing", self.smoothing, 0.0, above=True)

    def check(self, n: int) -> None:
        """Raise UserError unless n > 2f."""
        checks.majority("geometric_median", n, self.f)

    def apply(self, rows: Rows, weights: Tensor, state: State, context: Context) -> RuleResult:
        """Coefficients from the distances, then one combination of the rows."""
        shares, scores = weiszfeld(
            rows.distances, weights.double(), self.smoothing, self.iterations
        )
        return RuleResult(rows.combine(shares), shares, scores, state)


def weiszfeld(
    squares: Tensor, weights: Tensor, smoothing: float, iterations: int
) -> tuple[Tensor, Tensor]:
    """Coefficients [n] of the geometric median and the distances [n] to it.

    Args:
        squares: squared distances of the points, float64 [n, n].
        weights: float64 [n], summing to 1.
    """
    shares = weights
    distances = distances_to(squares, shares)
    # The usual distance is the median one seen from the most central row: f rows cannot move it.
    usual = float(squares.median(1).values.min().sqrt())
    floor = max(smoothing * usual, 1e-150)
    for _ in range(iterations):
        pull = weights / distances.clamp_min(floor)
        moved = pull / pull.sum()
        change = float((moved - shares).abs().max())
        shares, distances = moved, distances_to(squares, moved)
        if change < 1e-10:
            break
    return shares, distances


def distances_to(squares: Tensor, shares: Tensor) -> Tensor:
    """Distances [n] of all points to ``sum_i shares_i x_i`` (shares summing to 1).

    ``|x_i - z|² = (D s)_i - s D s / 2`` with D the squared distances: no inner products with
    large common parts that cancel.
    """
    toward = squares @ shares
    return torch.sqrt((toward - shares @ toward / 2).clamp_min(0.0))
