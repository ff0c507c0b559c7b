"""The coordinate-wise trimmed mean (Yin et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from strategies import checks, columnwise, sorting
from strategies.rows import Rows
from strategies.stage import Context, RobustRule, RuleResult, State


@dataclass(frozen=True)
class TrimmedMean(RobustRule):
    """Drop the f smallest and the f largest values of every coordinate, average the others.

    Trimming counts partners, not weight: what is left lies between honest values whatever weight
    the malicious ones hold.  The fair weights then average what is left.

    Attributes:
        f: malicious partners to tolerate, n > 2f.
    """

    f: int = 1
    title: ClassVar[str] = "The trimmed mean"

    def __post_init__(self) -> None:
        checks.whole("f", self.f, 0)

    def check(self, n: int) -> None:
        """Raise UserError unless n > 2f."""
        checks.majority("trimmed_mean", n, self.f)

    def apply(self, rows: Rows, weights: Tensor, state: State, context: Context) -> RuleResult:
        """The weighted mean of the middle n - 2f values of every column."""
        kept = range(self.f, rows.count - self.f)
        program = sorting.network(rows.count, frozenset(), frozenset(kept))

        def kernel(values: list[Tensor], spare: Tensor, out: Tensor) -> None:
            sorting.run(program, values, spare)
            out.copy_(values[self.f])
            for rank in kept[1:]:
                out.add_(values[rank])
            out.div_(len(kept))

        def places(values: Tensor, weights: Tensor) -> Tensor:
            mask = torch.zeros_like(values)
            mask[self.f : len(values) - self.f] = 1.0
            return columnwise.normalise_kept(mask, weights)

        update, shares = columnwise.merge(rows, weights, kernel, places)
        return RuleResult(update, shares, None, state)
