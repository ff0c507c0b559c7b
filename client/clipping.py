"""Per-example clipping, by extensions of Opacus' own classes.

Four ways to compute the same sum of clipped gradients, sum_i c_i g_i:

``hooks``        Opacus' per-example gradients, kept whole; good where little is trained.
``ghost``        norms without per-example gradients, then a second backward pass of the rescaled
                 loss (Li et al. 2022), as in Opacus.
``bookkeeping``  norms as in ghost, then the sum from the saved inputs and output gradients of every
                 layer: one backward pass (Bu et al. 2023, "Differentially private optimization on
                 large model at small cost").
``auto``         hooks or bookkeeping, whichever measures faster (`client.grad_sample_mode`).

And two factors c_i of a gradient of norm n, with clipping norm R:

``abadi``        min(1, R / n).  |c g| <= R.
``automatic``    R / (n + gamma), gamma = 0.01 (AUTO-S, Bu et al. 2023, "Automatic clipping").
                 |c g| = R n / (n + gamma) < R.

Sensitivity: with either factor, adding or removing one example moves the sum by at most R in l2
norm, because the factor of an example depends on nothing but its own gradient.  A gradient whose
norm is not a finite number gets the factor 0.  The norm must be no smaller than that of what is
added: hooks measure the very gradients that they add, book-keeping adds a bound of its rounding to
the norm (`client.bookkeeping`).  Ghost has no such bound, and is therefore for simulations only.
"""

from __future__ import annotations

import torch
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn

AUTO_S_GAMMA = 0.01


def clip_factors(norms: Tensor, clip: float, clipping_rule: str) -> Tensor:
    """Factor [n] of each gradient, given their `norms` [n] in float32; 0 for a non-finite norm."""
    if clipping_rule == "automatic":
        factors = clip / (norms + AUTO_S_GAMMA)
    else:
        factors = (clip / (norms + 1e-6)).clamp(max=1.0)
    return torch.where(norms.isfinite() & factors.isfinite(), factors, 0.0)


class AutoSDPOptimizer(DPOptimizer):
    """Opacus' optimizer for per-example gradients with AUTO-S instead of flat (Abadi) clipping.

    Sensitivity: `max_grad_norm`, see the module's docstring; the noise is that of `client.noise`.
    """

    def clip_and_accumulate(self) -> None:
        """Add sum_i c_i g_i to `p.summed_grad`; every `p.grad_sample` is [n, *p.shape].

        The gradients are scaled to norms below `max_grad_norm`, which Opacus' own clipping then
        leaves as they are.
        """
        samples = self.grad_samples
        norms = torch.stack([g.flatten(1).square().sum(1) for g in samples]).sum(0).sqrt()
        factors = clip_factors(norms, self.max_grad_norm, "automatic")
        for p, g in zip(self.params, samples, strict=True):
            p.grad_sample = torch.einsum("n,n...->n...", factors, g)
        super().clip_and_accumulate()


class GhostModule(GradSampleModuleFastGradientClipping):
    """Opacus' two-pass ghost clipping with a choice of factors."""

    def __init__(self, module: nn.Module, clip: float, clipping_rule: str) -> None:
        super().__init__(module, max_grad_norm=clip, loss_reduction="mean", strict=False)
        self.clipping_rule = clipping_rule

    def get_clipping_coef(self) -> Tensor:
        """Factors [n] of the examples whose norms the first pass has found."""
        return clip_factors(self.get_norm_sample(), self.max_grad_norm, self.clipping_rule)
