"""MoNNA: the mean of the nearest neighbours of one row (Farhadkhani et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from common.errors import UserError
from strategies import checks
from strategies.robust.krum import krum_scores, smallest
from strategies.rows import Rows
from strategies.stage import Context, RobustRule, RuleResult, State
from strategies.weights import selected_weights


@dataclass(frozen=True)
class MoNNA(RobustRule):
    """The weighted mean of the n - f rows nearest to a pivot, itself among them.

    Attributes:
        f: malicious partners to tolerate, n > 2f.
        pivot: place of a trusted partner among the accepted replies, counted from 0; None takes
            the row that Krum would choose.
    """

    f: int = 1
    pivot: int | None = None
    title: ClassVar[str] = "MoNNA"
    score_name: ClassVar[str | None] = "distance to the pivot"

    def __post_init__(self) -> None:
        checks.whole("f", self.f, 0)
        if self.pivot is not None:
            checks.whole("pivot", self.pivot, 0)

    def check(self, n: int) -> None:
        """Raise UserError unless n > 2f and the pivot is one of n rows."""
        checks.majority("monna", n, self.f)
        if self.pivot is not None and self.pivot >= n:
            raise UserError(f"monna needs pivot < n: pivot={self.pivot}, n={n}")

    def apply(self, rows: Rows, weights: Tensor, state: State, context: Context) -> RuleResult:
        """The mean of the pivot's n - f nearest rows."""
        pivot = self.pivot
        if pivot is None:
            pivot = int(krum_scores(rows.distances, self.f).argmin())
        scores = rows.squared_distances_to(pivot).sqrt()
        shares = selected_weights(weights, smallest(scores, rows.count - self.f))
        return RuleResult(rows.combine(shares), shares, scores, state)
