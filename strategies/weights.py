"""Weights that sum to 1 and that no single partner can inflate beyond a cap."""

from __future__ import annotations

import torch
from torch import Tensor

# Normalised weights that sum to less than this cannot be scaled up in float64.
NOTHING = 1e-12


def is_uniform(weights: Tensor) -> bool:
    """Whether all weights are equal up to rounding."""
    return bool(weights.max() - weights.min() <= 1e-9 * weights.max())


def selected_weights(weights: Tensor, kept: Tensor) -> Tensor:
    """Weights of the rows ``kept``, scaled to sum to 1, zero elsewhere; float64 [n].

    No selected row gets more than the largest weight that anyone was asked, unless too few are
    left for that: so that a cap on the weights survives the selection.
    """
    chosen = weights.double()[kept]
    total = float(chosen.sum())
    chosen = chosen / total if total > 0 else torch.full_like(chosen, 1 / len(kept))
    result = torch.zeros(len(weights), dtype=torch.float64)
    result[kept] = cap_weights(chosen, float(weights.max()))
    return result


def cap_weights(weights: Tensor, cap: float) -> Tensor:
    """Weights summing to 1 with none above max(cap, 1/n): the excess goes to the others.

    The others share the excess in proportion to their weights (equally where those are practically
    zero), and whoever then reaches the cap stays there.
    """
    n = len(weights)
    cap = max(cap, 1 / n)
    weights = weights.double() / weights.double().sum()
    full = torch.zeros(n, dtype=torch.bool)
    for _ in range(n):
        over = ~full & (weights > cap)
        if not bool(over.any()):
            break
        full |= over
        left = 1.0 - cap * int(full.sum())
        rest = torch.where(full, 0.0, weights)
        if float(rest.sum()) < NOTHING:
            rest = (~full).double()
        share = rest * (max(left, 0.0) / float(rest.sum())) if bool((~full).any()) else rest
        weights = torch.where(full, torch.full_like(weights, cap), share)
    return weights / weights.sum()
