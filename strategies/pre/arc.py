"""ARC: adaptive robust clipping (Allouah et al. 2025)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from strategies import checks
from strategies.pre.clipping import clip_to
from strategies.rows import Rows
from strategies.stage import Context, PreResult, PreStage


@dataclass(frozen=True)
class ARC(PreStage):
    """Clip the ``floor(2f/n * (n - f))`` longest rows to the norm of the next one.

    Attributes:
        f: malicious partners to tolerate, n > 2f.
    """

    f: int = 1

    def __post_init__(self) -> None:
        checks.whole("f", self.f, 0)

    def check(self, n: int) -> None:
        """Raise UserError unless n > 2f."""
        checks.majority("arc", n, self.f)

    def apply(self, rows: Rows, weights: Tensor, context: Context) -> PreResult:
        """Clip to a norm that at least one honest row reaches."""
        n = rows.count
        clipped = 2 * self.f * (n - self.f) // n
        bound = float(rows.norms.sort().values[n - clipped - 1])
        return clip_to(rows, weights, bound)
