"""FLTrust (Cao et al. 2021): trust bootstrapped from the server's own update."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from common.errors import UserError
from strategies import checks
from strategies.rows import Rows
from strategies.stage import Context, RobustRule, RuleResult, State

SHORTEST = 1e-20


@dataclass(frozen=True)
class FLTrust(RobustRule):
    """Weigh rows by their cosine with the server's update, cut at 0, all at the server's norm.

    The server's update is trained on its own public data from the incoming global model.  Where
    no row points its way, the update is zero.
    """

    title: ClassVar[str] = "FLTrust"
    score_name: ClassVar[str | None] = "cosine with the server's update"
    needs_reference: ClassVar[bool] = True

    def check(self, n: int) -> None:
        """Raise UserError without any partner."""
        checks.need("fltrust", n, 0, 1, "n >= 1")

    def apply(self, rows: Rows, weights: Tensor, state: State, context: Context) -> RuleResult:
        """The trust-weighted mean of the scaled rows."""
        reference = context.reference
        if reference is None:
            raise UserError("fltrust needs the server's own update, from public data at the server")
        length = float(torch.linalg.vector_norm(reference, dtype=torch.float64))
        # A row or a reference of practically no length points nowhere.
        norms = rows.norms.clamp_min(SHORTEST)
        cosines = rows.inner_products(reference) / (norms * max(length, SHORTEST))
        cosines = torch.where((rows.norms > SHORTEST) & (length > SHORTEST), cosines, 0.0)
        trust = cosines.clamp(0.0, 1.0) * weights.double()
        total = float(trust.sum())
        if total <= 0:
            zero = torch.zeros_like(trust)
            return RuleResult(torch.zeros(rows.size), zero, cosines, state)
        shares = trust / total
        factors = length / norms
        return RuleResult(
            rows.combine(shares * factors), shares, cosines, state, clip=factors.clamp_max(1.0)
        )
