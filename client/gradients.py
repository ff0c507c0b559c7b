"""Clipped sums of a physical batch, three ways, behind one small interface.

A `Clipper` wraps the trained part of the network in Opacus' hooks and leaves, for one physical
batch, what its optimiser accumulates: per-example gradients in `p.grad_sample`, or the clipped sum
in `p.grad`.  See `client.clipping` for the ways and their sensitivity argument.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import torch
from opacus.grad_sample import GradSampleModule
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
from torch import Tensor, nn

from client.bookkeeping import BookkeepingModule
from client.clipping import GhostModule
from common.device import Device
from common.examples.batch import Batch, Examples
from common.losses import per_record
from common.models.network import Network
from common.scoring import scoring_of


class Forward(nn.Module):
    """What Opacus wraps: the network's trained part behind one `forward(batch)`."""

    def __init__(self, network: Network, examples: Examples) -> None:
        super().__init__()
        self.trained = network.trained
        self.losses = scoring_of(network.task).losses
        self._call: Callable[[Batch], Tensor] = lambda batch: examples.logits(network, batch)

    def forward(self, batch: Batch) -> Tensor:
        """Logits of a batch."""
        return self._call(batch)


def forget(model: nn.Module) -> None:
    """Delete what Opacus' hooks have left on a model whose pass did not come to its end."""
    for module in model.modules():
        for name in ("activations", "max_batch_len"):
            if hasattr(module, name):
                delattr(module, name)
    for parameter in model.parameters():
        for name in ("_current_grad_sample", "grad_sample", "_norm_sample", "_forward_counter"):
            if hasattr(parameter, name):
                delattr(parameter, name)
        parameter.grad = None


class Clipper(Protocol):
    """One way to the clipped sum of a physical batch."""

    def contribute(self, batch: Batch) -> None:
        """Leave the contribution of `batch`, which is on the device and not empty."""

    def contribute_nothing(self) -> None:
        """Leave the contribution of no examples: zeros."""

    def close(self) -> None:
        """Take the hooks off the network."""


class HooksClipper:
    """Per-example gradients from Opacus' hooks; its DPOptimizer clips them.

    Sensitivity: the optimiser measures the norm of the very gradients that it adds, so one example
    adds at most `max_grad_norm`; one that is not finite adds zero.
    """

    def __init__(self, model: Forward, device: Device) -> None:
        self.model, self.device = model, device
        self.module = GradSampleModule(model, loss_reduction="sum", strict=False)
        # Opacus adds `grad_sample` to parameters, which their type does not know.
        self.parameters: list[Any] = [p for p in model.parameters() if p.requires_grad]

    def contribute(self, batch: Batch) -> None:
        """Set `p.grad_sample`, [examples, *p.shape], float32 and finite."""
        with self.device.products():
            with self.device.autocast():
                logits = self.module(batch)
            self.model.losses(logits, batch).sum().backward()
        for p in self.parameters:
            if getattr(p, "grad_sample", None) is None:
                # The parameter is cut off from the loss of these examples.
                p.grad_sample = torch.zeros((len(batch), *p.shape), device=p.device)
                continue
            # Parameters can be crafted so that one certain example overflows, which must not make
            # the sum NaN, noise and all.  After the windows of an example are added up, because
            # two finite windows can overflow together.
            gradients = per_record(p.grad_sample.float(), batch.owner, len(batch))
            p.grad_sample = gradients.nan_to_num(0.0, 0.0, 0.0)

    def contribute_nothing(self) -> None:
        """Gradients of no examples."""
        for p in self.parameters:
            p.grad_sample = torch.zeros((0, *p.shape), device=p.device)

    def close(self) -> None:
        """Take the hooks off."""
        self.module.remove_hooks()
        forget(self.model)


class _Criterion(nn.Module):
    """The task's loss of each example, as Opacus calls a criterion."""

    reduction = "mean"

    def __init__(self, losses: Callable[[Tensor, Batch], Tensor]) -> None:
        super().__init__()
        self.losses = losses

    def forward(self, logits: Tensor, batch: Batch) -> Tensor:
        """Losses [examples]."""
        return self.losses(logits, batch)


class _SumClipper:
    """Ways that leave the clipped sum itself in `p.grad`."""

    def __init__(self, model: Forward) -> None:
        self.model = model
        self.parameters = [p for p in model.parameters() if p.requires_grad]

    def contribute_nothing(self) -> None:
        """A sum of zero."""
        for p in self.parameters:
            p.grad = torch.zeros_like(p)

    def fill(self) -> None:
        """Zeros for parameters that are cut off from the loss of these examples."""
        for p in self.parameters:
            if p.grad is None:
                p.grad = torch.zeros_like(p)


class GhostClipper(_SumClipper):
    """Ghost clipping (Li et al. 2022): norms without per-example gradients, two backward passes.

    Runs in float32: Opacus takes the norms in the dtype of the activations, and a bf16 norm would
    bound the sensitivity only to about one percent.
    """

    def __init__(
        self, model: Forward, optimizer: DPOptimizerFastGradientClipping, clipping_rule: str
    ) -> None:
        super().__init__(model)
        self.module = GhostModule(model, optimizer.max_grad_norm, clipping_rule)
        criterion = _Criterion(model.losses)
        self.criterion = DPLossFastGradientClipping(self.module, optimizer, criterion)

    def contribute(self, batch: Batch) -> None:
        """Two backward passes."""
        if batch.inputs.is_floating_point():
            batch = replace(batch, inputs=batch.inputs.float())
        self.criterion(self.module(batch), batch).backward()
        self.fill()

    def close(self) -> None:
        """Take the hooks off."""
        self.module.remove_hooks()
        forget(self.model)


class BookkeepingClipper(_SumClipper):
    """The clipped sum from one backward pass.

    Sensitivity: the norms that it clips by are upper bounds, rounding included; the proof is in
    `client.bookkeeping`.
    """

    def __init__(self, model: Forward, clip: float, clipping_rule: str, device: Device) -> None:
        super().__init__(model)
        self.device = device
        self.module = BookkeepingModule(model, clip, clipping_rule)

    def contribute(self, batch: Batch) -> None:
        """One backward pass."""
        with self.device.autocast():
            logits = self.module(batch)
        self.module.backward(self.model.losses(logits, batch))
        self.fill()

    def close(self) -> None:
        """Take the hooks off."""
        self.module.remove_hooks()
        forget(self.model)


def clipper(
    grad_sample_mode: str,
    model: Forward,
    optimizer: DPOptimizer,
    clipping_rule: str,
    device: Device,
) -> Clipper:
    """A new clipper for `privacy.grad_sample_mode`; its hooks stay on the model until it closes."""
    if grad_sample_mode == "ghost":
        return GhostClipper(model, optimizer, clipping_rule)
    if grad_sample_mode == "bookkeeping":
        return BookkeepingClipper(model, optimizer.max_grad_norm, clipping_rule, device)
    return HooksClipper(model, device)
