"""Multi-Krum (Blanchard et al. 2017; El Mhamdi et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from strategies import checks
from strategies.robust.krum import krum_scores, smallest
from strategies.rows import Rows
from strategies.stage import Context, RobustRule, RuleResult, State
from strategies.weights import selected_weights


@dataclass(frozen=True)
class MultiKrum(RobustRule):
    """The weighted mean of the n - f rows with the best Krum scores.

    Attributes:
        f: malicious partners to tolerate, n >= 2f + 3.
    """

    f: int = 1
    title: ClassVar[str] = "Multi-Krum"
    score_name: ClassVar[str | None] = "distance score"

    def __post_init__(self) -> None:
        checks.whole("f", self.f, 0)

    def check(self, n: int) -> None:
        """Raise UserError unless n >= 2f + 3."""
        checks.need("multi_krum", n, self.f, 2 * self.f + 3, "n >= 2f+3")

    def apply(self, rows: Rows, weights: Tensor, state: State, context: Context) -> RuleResult:
        """The mean of the n - f rows that lie nearest to their neighbours."""
        scores = krum_scores(rows.distances, self.f)
        shares = selected_weights(weights, smallest(scores, rows.count - self.f))
        return RuleResult(rows.combine(shares), shares, scores, state)
