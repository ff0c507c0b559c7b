"""The coordinate-wise weighted median (Yin et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from strategies import checks, columnwise, sorting
from strategies.rows import Rows
from strategies.stage import Context, RobustRule, RuleResult, State


@dataclass(frozen=True)
class Median(RobustRule):
    """In every coordinate the value with half of the weight on either side.

    Where exactly half lies below, the two middle values are averaged, so that equal weights give
    the usual median.  Stays within the range of honest values while malicious partners hold less
    than half of the weight.

    Attributes:
        f: malicious partners to tolerate; used to check n > 2f and f * cap < 1/2.
    """

    f: int = 1
    title: ClassVar[str] = "The median"
    breaks_at_half_weight: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.whole("f", self.f, 0)

    def check(self, n: int) -> None:
        """Raise UserError unless n > 2f."""
        checks.majority("median", n, self.f)

    def apply(self, rows: Rows, weights: Tensor, state: State, context: Context) -> RuleResult:
        """The weighted median of every column."""
        low, high = (rows.count - 1) // 2, rows.count // 2
        program = sorting.network(rows.count, frozenset(), frozenset({low, high}))

        def kernel(values: list[Tensor], spare: Tensor, out: Tensor) -> None:
            sorting.run(program, values, spare)
            torch.add(values[low], values[high], out=out)
            out.mul_(0.5)

        update, shares = columnwise.merge(rows, weights, kernel, _middle)
        return RuleResult(update, shares, None, state)


def _middle(values: Tensor, weights: Tensor) -> Tensor:
    """Half a weight for the lower and half for the upper weighted median of sorted columns."""
    below = weights.double().cumsum(0)
    half = below[-1] / 2
    slack = 1e-6
    low = (below < half - slack).sum(0, keepdim=True)
    high = (below <= half + slack).sum(0, keepdim=True).clamp_max(len(values) - 1)
    places = torch.zeros_like(values)
    places.scatter_(0, low, 0.5)
    return places.scatter_add_(0, high, torch.full_like(high, 0.5, dtype=values.dtype))
