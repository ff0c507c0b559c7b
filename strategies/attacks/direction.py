"""What MinMax and MinSum share: the direction of the push and how far it may go."""

from __future__ import annotations

import torch
from torch import Tensor


def direction(honest: Tensor, along: str) -> Tensor:
    """The perturbation [d] against the honest mean: minus its std, its sign or its unit vector."""
    if along == "std":
        return -honest.std(0)
    mean = honest.mean(0)
    if along == "sign":
        return -torch.sign(mean)
    if along == "unit":
        unit: Tensor = -mean / torch.linalg.vector_norm(mean).clamp_min(1e-30)
        return unit
    raise ValueError(f"along: must be std, sign or unit, got {along!r}")


def largest_step(square: float, linear: Tensor, constant: Tensor) -> Tensor:
    """The larger root of ``square * g² + 2 * linear * g + constant = 0`` (0 if there is none)."""
    if square <= 0:
        return torch.zeros_like(constant)
    root = (linear**2 - square * constant).clamp_min(0.0).sqrt()
    return (root - linear) / square
