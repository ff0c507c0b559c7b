"""Opacus' private optimisers with the project's own noise.

Clipping, accumulation, scaling and the step are Opacus'.  The noise is that of `common.grid`:
cryptographic, on a public grid, of the stated distribution in exact arithmetic.  Opacus' own comes
from `torch.normal`, whose generators (a Mersenne twister, on GPUs Philox) can be computed backwards
from their output; its `secure_mode` needs a package that no longer installs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.optimizers.optimizer import _check_processed_flag, _mark_as_processed

from client.clipping import AutoSDPOptimizer
from common.grid import GaussianMechanism
from common.randomness import Stream


class GridNoise(DPOptimizer):
    """`add_noise` on a grid, for any of Opacus' optimisers, whose later bases it is mixed into.

    Sensitivity: `max_grad_norm`, by the clipping of the optimiser; `common.grid` adds what rounding
    to the grid costs.  Physical batches are added up in float64, so that how a logical batch is cut
    changes the sum by no more than float32 rounding within a physical batch does.
    """

    stream: Stream

    def clip_and_accumulate(self) -> None:
        """Add the clipped sum of a physical batch to `p.summed_grad`, float64, or nothing of it."""
        with self._whole():
            super().clip_and_accumulate()

    def accumulate(self) -> None:
        """The same where the clipped sum is in `p.grad` already."""
        with self._whole():
            super().accumulate()

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Add what is summed within to what was there before, once all of it has been computed."""
        before = [p.summed_grad for p in self.params]
        for p in self.params:
            p.summed_grad = None
        try:
            yield
            sums = [p.summed_grad.double() for p in self.params]
        except BaseException:
            sums = [None] * len(before)
            raise
        finally:
            for p, old, new in zip(self.params, before, sums, strict=True):
                p.summed_grad = old if new is None else new if old is None else old.add_(new)

    def forget_batch(self) -> None:
        """Let go of a physical batch that could not be added; what was added before stays."""
        self._step_skip_queue.clear()
        for p in self.params:
            p.grad = p.grad_sample = None

    def add_noise(self) -> None:
        """Set `p.grad` to the noisy sum, in the parameter's dtype.

        Without noise (an audit of a training that claims nothing) the sum is left as it is.
        """
        if self.noise_multiplier == 0:
            for p in self.params:
                p.grad = p.summed_grad.to(p.dtype).view_as(p)
            return
        mechanism = GaussianMechanism(
            self.max_grad_norm,
            self.noise_multiplier,
            sum(p.numel() for p in self.params),
            self.stream,
        )
        for p in self.params:
            _check_processed_flag(p.summed_grad)
            p.grad = mechanism.release(p.summed_grad).to(p.device, p.dtype).view_as(p)
            _mark_as_processed(p.summed_grad)


class FlatOptimizer(GridNoise, DPOptimizer):
    """Per-example gradients, flat clipping."""


class AutomaticOptimizer(GridNoise, AutoSDPOptimizer):
    """Per-example gradients, automatic clipping."""


class SumOptimizer(GridNoise, DPOptimizerFastGradientClipping):
    """Sums that were clipped before (ghost clipping, book-keeping)."""


def private_optimizer(
    inner: torch.optim.Optimizer,
    grad_sample_mode: str,
    clipping: str,
    *,
    noise_multiplier: float,
    max_grad_norm: float,
    expected_batch_size: float,
    stream: Stream,
) -> GridNoise:
    """The optimiser for a `grad_sample_mode` and a `clipping`, around `inner`.

    It divides sums by `expected_batch_size`.
    """
    kinds = {("hooks", "abadi"): FlatOptimizer, ("hooks", "automatic"): AutomaticOptimizer}
    optimizer = kinds.get((grad_sample_mode, clipping), SumOptimizer)(
        inner,
        noise_multiplier=noise_multiplier,
        max_grad_norm=max_grad_norm,
        expected_batch_size=expected_batch_size,
        loss_reduction="mean",
    )
    optimizer.stream = stream
    return optimizer
