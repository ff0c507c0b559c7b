"""MeaMed: the mean around the median of every coordinate (Xie et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from strategies import checks, columnwise, sorting
from strategies.rows import Rows
from strategies.stage import Context, RobustRule, RuleResult, State


@dataclass(frozen=True)
class MeaMed(RobustRule):
    """In every coordinate the weighted mean of the n - f values nearest to the median.

    Attributes:
        f: malicious partners to tolerate, n > 2f.
    """

    f: int = 1
    title: ClassVar[str] = "MeaMed"

    def __post_init__(self) -> None:
        checks.whole("f", self.f, 0)

    def check(self, n: int) -> None:
        """Raise UserError unless n > 2f."""
        checks.majority("meamed", n, self.f)

    def apply(self, rows: Rows, weights: Tensor, state: State, context: Context) -> RuleResult:
        """The mean of the n - f values nearest to the median of every column."""
        update, shares = mean_near_median(rows, weights, rows.count - self.f)
        return RuleResult(update, shares, None, state)


def mean_near_median(rows: Rows, weights: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """The weighted mean of the ``keep`` values nearest to the median of every column; shares."""
    n = rows.count
    program = sorting.network(n, frozenset(range(n)), frozenset())

    def kernel(values: list[Tensor], spare: Tensor, out: Tensor) -> None:
        spare = sorting.run(program, values, spare)
        torch.add(values[(n - 1) // 2], values[n // 2], out=out)
        median = out.mul_(0.5)
        total = columnwise.sum_nearest(values, median, keep, spare)
        torch.div(total, keep, out=out)

    def places(values: Tensor, weights: Tensor) -> Tensor:
        return columnwise.nearest(values, weights, keep)

    return columnwise.merge(rows, weights, kernel, places)
