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
        # One pass over memory instead of ten; it takes gradients as they lie in memory.
        adam = torch.optim.Adam(
            parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True
        )
        adam.register_step_pre_hook(_in_order)
        return adam
    return torch.optim.SGD(parameters, lr=config.lr, weight_decay=config.weight_decay)


def _in_order(optimizer: torch.optim.Optimizer, *_: object) -> None:
    """Gradients in the order of their parameters' memory."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                parameter.grad = parameter.grad.contiguous()
