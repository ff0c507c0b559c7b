"""MDA: minimum-diameter averaging (Rousseeuw 1985; El Mhamdi et al. 2021)."""

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
class MDA(RobustRule):
    """The weighted mean of the n - f rows whose largest mutual distance is least.

    Of several such sets the first in the order of rows is taken.

    Attributes:
        f: malicious partners to tolerate, n > 2f.
    """

    f: int = 1
    title: ClassVar[str] = "MDA"
    score_name: ClassVar[str | None] = "largest distance to the chosen set"

    def __post_init__(self) -> None:
        checks.whole("f", self.f, 0)

    def check(self, n: int) -> None:
        """Raise UserError unless n > 2f."""
        checks.majority("mda", n, self.f)

    def apply(self, rows: Rows, weights: Tensor, state: State, context: Context) -> RuleResult:
        """The mean of the tightest n - f rows."""
        kept = tightest_subset(rows.distances, self.f)
        shares = selected_weights(weights, kept)
        scores = rows.distances[:, kept].max(1).values.sqrt()
        return RuleResult(rows.combine(shares), shares, scores, state)


def tightest_subset(distances: Tensor, f: int) -> Tensor:
    """Rows of the (n - f)-subset with the least diameter, exactly, in order.

    A set of n - f rows has diameter at most D when the f rows left out cover every pair that is
    farther apart than D.  Vertex cover is quick for the small f of a federation, where trying
    all subsets is hopeless (n = 50, f = 10 has 10^10).  D is found by bisection over the pairs.
    """
    n = distances.shape[0]
    candidates = torch.unique(distances).tolist()
    low, high = 0, len(candidates) - 1
    while low < high:
        middle = (low + high) // 2
        if _coverable(_conflicts(distances, candidates[middle]), (1 << n) - 1, f):
            high = middle
        else:
            low = middle + 1
    return torch.tensor(_first_subset(_conflicts(distances, candidates[low]), n, f))


def _conflicts(distances: Tensor, bound: float) -> list[int]:
    """For each row the bit mask of rows farther than ``bound``."""
    return [
        sum(1 << j for j, distance in enumerate(row) if distance > bound)
        for row in distances.tolist()
    ]


def _coverable(conflicts: list[int], alive: int, budget: int) -> bool:
    """Whether at most ``budget`` rows of ``alive`` touch every conflict among them."""
    degrees = [
        ((conflicts[i] & alive).bit_count(), i) for i in range(len(conflicts)) if alive >> i & 1
    ]
    degree, row = max(degrees, default=(0, 0))
    if degree == 0:
        return True
    if sum(d for d, _ in degrees) // 2 > budget * degree:
        return False
    without = alive & ~(1 << row)
    if _coverable(conflicts, without, budget - 1):
        return True
    if degree > budget:
        return False
    return _coverable(conflicts, without & ~conflicts[row], budget - degree)


def _first_subset(conflicts: list[int], n: int, f: int) -> list[int]:
    """The first conflict-free set of n - f rows in lexicographic order."""
    kept: list[int] = []
    alive, budget = (1 << n) - 1, f
    for row in range(n):
        if len(kept) == n - f:
            break
        if not alive >> row & 1:
            continue
        foes = conflicts[row] & alive
        rest = alive & ~foes & ~(1 << row)
        if foes.bit_count() <= budget and _coverable(conflicts, rest, budget - foes.bit_count()):
            kept.append(row)
            alive, budget = rest, budget - foes.bit_count()
        else:
            alive, budget = alive & ~(1 << row), budget - 1
    return kept
