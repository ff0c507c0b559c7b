"""The cap that all fair weights share: what a lie about one's loss or size buys at most."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from common.errors import UserError
from strategies import checks


def check_cap(cap: float) -> None:
    """Raise ValueError unless ``cap`` is in (0, 1]."""
    checks.number("cap", cap, 0.0, 1.0, above=True)


def check_cap_holds(cap: float, n: int) -> None:
    """Raise UserError when n weights below ``cap`` cannot sum to 1 (a single partner may)."""
    if n > 1 and cap * n < 1 - 1e-9:
        raise UserError(
            f"strategy.fair.cap: must be at least 1/n = {1 / n:.3g} for n={n} partners, got {cap:g}"
        )


def column(metrics: Mapping[str, Mapping[str, float]], key: str) -> Tensor:
    """One metric of all partners, float64 [n], in their order."""
    return torch.tensor([float(values[key]) for values in metrics.values()], dtype=torch.float64)
