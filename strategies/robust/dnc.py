"""DnC: divide and conquer (Shejwalkar and Houmansadr 2021, "Manipulating the Byzantine")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from common.errors import UserError
from strategies import checks
from strategies.rows import Rows
from strategies.stage import Context, RobustRule, RuleResult, State
from strategies.weights import selected_weights


@dataclass(frozen=True)
class DnC(RobustRule):
    """Leave out the rows that stand out along the leading direction of random columns.

    Each iteration draws columns, projects the centred rows on their first singular vector and
    drops the ``filter_fraction * f`` largest squared projections; rows that no iteration dropped
    are averaged.  Made for attackers who push together: of several rows of unrelated, huge noise it
    may find only the first, so clip before it.

    Attributes:
        f: malicious partners to tolerate.
        columns: columns drawn in an iteration.
        iterations: draws; n > iterations * filter_fraction * f keeps somebody.
        filter_fraction: rows dropped in an iteration, as a multiple of f.
    """

    f: int = 1
    columns: int = 10_000
    iterations: int = 1
    filter_fraction: float = 1.0
    title: ClassVar[str] = "DnC"
    score_name: ClassVar[str | None] = "outlier score"

    def __post_init__(self) -> None:
        checks.whole("f", self.f, 0)
        checks.whole("columns", self.columns, 1)
        checks.whole("iterations", self.iterations, 1)
        checks.number("filter_fraction", self.filter_fraction, 0.0, above=True)

    @property
    def _dropped(self) -> int:
        return round(self.filter_fraction * self.f)

    def check(self, n: int) -> None:
        """Raise UserError unless n > 2f and some row is sure to stay."""
        checks.majority("dnc", n, self.f)
        if n <= self.iterations * self._dropped:
            raise UserError(
                f"dnc needs n > iterations * filter_fraction * f: n={n}, "
                f"{self.iterations} * {self.filter_fraction:g} * {self.f}"
            )

    def apply(self, rows: Rows, weights: Tensor, state: State, context: Context) -> RuleResult:
        """The weighted mean of the rows that stayed in every iteration."""
        n = rows.count
        good = torch.ones(n, dtype=torch.bool)
        worst = torch.zeros(n, dtype=torch.float64)
        for _ in range(self.iterations):
            index = torch.randint(rows.size, (self.columns,), generator=context.generator)
            if self.columns >= rows.size:
                index = torch.arange(rows.size)
            scores = outlier_scores(rows.columns(index))
            worst = torch.maximum(worst, scores)
            if self._dropped:
                good[scores.argsort(stable=True)[n - self._dropped :]] = False
        shares = selected_weights(weights, good.nonzero().squeeze(1))
        return RuleResult(rows.combine(shares), shares, worst, state)


def outlier_scores(sample: Tensor) -> Tensor:
    """Squared projections [n] of the centred rows of ``sample`` on their first singular vector."""
    centred = sample.double() - sample.double().mean(0)
    values, vectors = torch.linalg.eigh(centred @ centred.T)
    scores: Tensor = values[-1].clamp_min(0.0) * vectors[:, -1] ** 2
    return scores
