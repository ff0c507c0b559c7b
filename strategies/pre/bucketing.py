"""Bucketing (Karimireddy et al. 2022, "Byzantine-robust learning on heterogeneous datasets")."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from strategies import checks
from strategies.rows import Rows
from strategies.stage import Context, PreResult, PreStage


@dataclass(frozen=True)
class Bucketing(PreStage):
    """Shuffle the rows and average them in buckets of ``size``; the last may be smaller.

    A malicious row spoils its bucket: the rule behind still meets up to f bad rows, now among
    fewer.  A bucket's weight is the sum of its rows', and within it they count by their weights.

    Attributes:
        size: rows in a bucket.
    """

    size: int = 2

    def __post_init__(self) -> None:
        checks.whole("size", self.size, 1)

    def check(self, n: int) -> None:
        """Raise UserError without any row."""
        checks.need("bucketing", n, 0, 1, "n >= 1")

    def rows_after(self, n: int) -> int:
        """The number of buckets."""
        return -(-n // self.size)

    def apply(self, rows: Rows, weights: Tensor, context: Context) -> PreResult:
        """Draw the buckets from the round's generator and average."""
        n = rows.count
        order = torch.randperm(n, generator=context.generator)
        mixing = torch.zeros(self.rows_after(n), n, dtype=torch.float64)
        for bucket, members in enumerate(torch.split(order, self.size)):
            inside = weights.double()[members]
            total = inside.sum()
            mixing[bucket, members] = inside / total if total > 0 else 1 / len(members)
        sums = (mixing > 0).double() @ weights.double()
        return PreResult(rows.mix(mixing), sums / sums.sum(), mixing=mixing)
