"""Bulyan (El Mhamdi et al. 2018, "The hidden vulnerability of distributed learning")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from strategies import checks
from strategies.robust.krum import krum_scores
from strategies.robust.meamed import mean_near_median
from strategies.rows import Rows
from strategies.stage import Context, RobustRule, RuleResult, State
from strategies.weights import selected_weights


@dataclass(frozen=True)
class Bulyan(RobustRule):
    """Select n - 2f rows by Krum, one at a time, then average around their median.

    Selection is the paper's: after each pick the picked row is taken out and Krum is run again on
    the rest.  In every coordinate the n - 4f values nearest to the median of those selected are
    averaged.

    Attributes:
        f: malicious partners to tolerate, n >= 4f + 3.
    """

    f: int = 1
    title: ClassVar[str] = "Bulyan"
    score_name: ClassVar[str | None] = "distance score"

    def __post_init__(self) -> None:
        checks.whole("f", self.f, 0)

    def check(self, n: int) -> None:
        """Raise UserError unless n >= 4f + 3."""
        checks.need("bulyan", n, self.f, 4 * self.f + 3, "n >= 4f+3")

    def apply(self, rows: Rows, weights: Tensor, state: State, context: Context) -> RuleResult:
        """Select, then average around the median."""
        n = rows.count
        kept = iterated_krum(rows.distances, self.f, n - 2 * self.f)
        inside = selected_weights(weights, kept)[kept]
        chosen = rows.mix(torch.eye(n, dtype=torch.float64)[kept])
        update, inner = mean_near_median(chosen, inside, n - 4 * self.f)
        shares = torch.zeros(n, dtype=torch.float64)
        shares[kept] = inner
        return RuleResult(update, shares, krum_scores(rows.distances, self.f), state)


def iterated_krum(distances: Tensor, f: int, count: int) -> Tensor:
    """Indices of ``count`` rows, each the Krum choice among those not yet taken, in row order."""
    left = torch.arange(distances.shape[0])
    taken = []
    for _ in range(count):
        best = int(krum_scores(distances[left][:, left], f).argmin())
        taken.append(int(left[best]))
        left = torch.cat([left[:best], left[best + 1 :]])
    return torch.tensor(sorted(taken))
