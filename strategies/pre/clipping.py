"""Shortening rows to a norm."""

from __future__ import annotations

from torch import Tensor

from strategies.rows import Rows
from strategies.stage import PreResult


def clip_factors(norms: Tensor, bound: float) -> Tensor:
    """``min(1, bound / norm)`` for each row; 1 for a row of zeros."""
    return (bound / norms.clamp_min(1e-300)).clamp_max(1.0)


def clip_to(rows: Rows, weights: Tensor, bound: float) -> PreResult:
    """Rows with norms of at most ``bound``, and the factors."""
    factors = clip_factors(rows.norms, bound)
    return PreResult(rows.scale(factors), weights, clip=factors)
