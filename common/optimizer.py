"""The optimiser of local training, the same at partners and for the server's own update."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from common.config import TrainConfig


def local_optimizer(
    parameters: Sequence[nn.Parameter], config: TrainConfig
) -> torch.optim.SGD | torch.optim.Adam:
    """A new optimiser over `parameters`, without state."""
    if config.optimizer == "adam":
        return torch.optim.Adam(
            parameters,
            lr=config.lr,
            weight_decay=config.weight_decay,
            # One pass over memory instead of ten.
            fused=True,
        )
    return torch.optim.SGD(parameters, lr=config.lr, weight_decay=config.weight_decay)
