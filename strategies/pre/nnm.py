"""NNM: nearest-neighbour mixing (Allouah et al. 2023, "Fixing by mixing")."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from strategies import checks
from strategies.rows import Rows
from strategies.stage import Context, PreResult, PreStage


@dataclass(frozen=True)
class NNM(PreStage):
    """Replace every row by the mean of its n - f nearest rows, itself among them.

    Attributes:
        f: malicious partners to tolerate, n > 2f.
    """

    f: int = 1

    def __post_init__(self) -> None:
        checks.whole("f", self.f, 0)

    def check(self, n: int) -> None:
        """Raise UserError unless n > 2f."""
        checks.majority("nnm", n, self.f)

    def apply(self, rows: Rows, weights: Tensor, context: Context) -> PreResult:
        """Mix; needs the Gram matrix only, and hands on the mixed one."""
        n = rows.count
        nearest = rows.distances.argsort(dim=1, stable=True)[:, : n - self.f]
        mixing = torch.zeros(n, n, dtype=torch.float64)
        mixing.scatter_(1, nearest, 1 / (n - self.f))
        return PreResult(rows.mix(mixing), weights, mixing=mixing)
