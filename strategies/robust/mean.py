"""The weighted mean (McMahan et al. 2017): no robustness, the baseline of all rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from strategies import checks
from strategies.rows import Rows
from strategies.stage import Context, RobustRule, RuleResult, State


@dataclass(frozen=True)
class Mean(RobustRule):
    """``sum_i w_i x_i``.  One malicious partner can move it anywhere."""

    title: ClassVar[str] = "The mean"

    def check(self, n: int) -> None:
        """Raise UserError without any partner."""
        checks.need("mean", n, 0, 1, "n >= 1")

    def apply(self, rows: Rows, weights: Tensor, state: State, context: Context) -> RuleResult:
        """The weighted sum of the rows."""
        return RuleResult(rows.combine(weights), weights.double(), None, state)
