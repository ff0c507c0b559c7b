"""The local optimiser takes gradients of any layout."""

from __future__ import annotations

import torch
from torch import nn

from common.config import TrainConfig
from common.optimizer import local_optimizer


def test_adam_takes_a_gradient_that_lies_otherwise_in_memory() -> None:
    draw = torch.Generator().manual_seed(0)
    start = torch.randn(3, 5, generator=draw)
    gradients = [torch.randn(5, 3, generator=draw).T for _ in range(3)]
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizer = local_optimizer([ours], TrainConfig(optimizer="adam", lr=0.1))
    plain = torch.optim.Adam([theirs], lr=0.1, foreach=False, fused=False)
    for gradient in gradients:
        assert not gradient.is_contiguous()
        ours.grad, theirs.grad = gradient, gradient.clone()
        optimizer.step()
        plain.step()
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
