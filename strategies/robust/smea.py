"""SMEA: smallest maximum eigenvalue averaging (Allouah et al. 2023)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

import torch
from torch import Tensor

from common.errors import UserError
from strategies import checks
from strategies.robust.geometric_median import distances_to
from strategies.rows import Rows
from strategies.stage import Context, RobustRule, RuleResult, State
from strategies.weights import selected_weights

BATCH = 1024


@dataclass(frozen=True)
class SMEA(RobustRule):
    """The weighted mean of the n - f rows that vary least along their leading direction.

    Every subset of n - f rows is tried, on the distances alone.  Of several such sets the first in
    the order of rows is taken.  ("On the privacy-robustness-utility trilemma in distributed
    learning"; ByzFL 0.0.11 takes one power iteration from a random start for the eigenvalue, which
    is exact here.)

    Attributes:
        f: malicious partners to tolerate, n > 2f.
        max_subsets: the rule refuses n and f with more subsets than that.
    """

    f: int = 1
    max_subsets: int = 20_000
    title: ClassVar[str] = "SMEA"
    score_name: ClassVar[str | None] = "distance to the mean of the chosen set"

    def __post_init__(self) -> None:
        checks.whole("f", self.f, 0)
        checks.whole("max_subsets", self.max_subsets, 1)

    def check(self, n: int) -> None:
        """Raise UserError unless n > 2f and there are at most ``max_subsets`` subsets."""
        checks.majority("smea", n, self.f)
        if math.comb(n, self.f) > self.max_subsets:
            raise UserError(
                f"smea needs at most max_subsets={self.max_subsets} subsets of n - f partners, "
                f"there are {math.comb(n, self.f)}: n={n}, f={self.f}; caf and mda need no search"
            )

    def apply(self, rows: Rows, weights: Tensor, state: State, context: Context) -> RuleResult:
        """The mean of the least varied n - f rows."""
        kept = least_varied_subset(rows.distances, self.f)
        shares = selected_weights(weights, kept)
        equal = torch.zeros(rows.count, dtype=torch.float64)
        equal[kept] = 1 / len(kept)
        scores = distances_to(rows.distances, equal)
        return RuleResult(rows.combine(shares), shares, scores, state)


def least_varied_subset(distances: Tensor, f: int) -> Tensor:
    """Rows of the (n - f)-subset whose covariance has the least largest eigenvalue, in order."""
    n = distances.shape[0]
    subsets = torch.tensor(list(combinations(range(n), n - f)))
    largest = []
    for batch in subsets.split(BATCH):
        inside = distances[batch[:, :, None], batch[:, None, :]]
        # Inner products around the mean of each subset, from its distances.
        means = inside.mean(1)
        whole = means.mean(1)[:, None, None]
        inner = (means[:, :, None] + means[:, None, :] - inside - whole) / 2
        largest.append(torch.linalg.eigvalsh(inner)[:, -1])
    spread = torch.cat(largest)
    # Equal spreads differ by rounding, which must not choose.
    return subsets[int((spread <= spread.min() * (1 + 1e-9)).int().argmax())]
