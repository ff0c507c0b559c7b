"""Static clipping: no row longer than a fixed norm."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from strategies import checks
from strategies.pre.clipping import clip_to
from strategies.rows import Rows
from strategies.stage import Context, PreResult, PreStage


@dataclass(frozen=True)
class StaticClipping(PreStage):
    """Shorten every row to at most ``max_norm``.

    Attributes:
        max_norm: the bound, in the units of the updates' Euclidean norm.
    """

    max_norm: float = 1.0

    def __post_init__(self) -> None:
        checks.number("max_norm", self.max_norm, 0.0, above=True)

    def apply(self, rows: Rows, weights: Tensor, context: Context) -> PreResult:
        """Rows times ``min(1, max_norm / norm)``."""
        return clip_to(rows, weights, self.max_norm)
