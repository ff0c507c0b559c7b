"""Book-keeping: the clipped sum from one backward pass (Bu et al. 2023, arXiv 2210.00038).

A linear layer whose example i has inputs a_t and output gradients b_t at tokens t has the gradient
g_i = sum_t b_t a_t^T, of squared norm sum_ts (b_t . b_s)(a_t . a_s).  Opacus' ghost clipping takes
the norms like that and then goes backwards a second time; here the a and b of every layer are kept
("book-keeping"), and sum_i c_i g_i is formed from them.  The gradients of the weights that autograd
would compute are never asked for, so the work is that of plain training and the norms.

Sensitivity: that squared norm is a sum that can cancel.  Tokens whose gradients cancel exactly in
real numbers (the keys of an attention; parameters crafted so) leave only rounding errors, computed
one way in the norm and another way in the sum, and a norm that is too small would let one example
move the sum by any amount.  So the norms here are upper bounds of the true ones: with S = sum_t
|a_t| |b_t|, v = 2^-24 the unit roundoff of float32 and dot products of d numbers off by at most
d v |x| |y| (Higham 2002, section 3.1), the double sum is off by at most (in + out + 64) v S^2;
twice that is added.  Then S is at most 1 / sqrt(2 (in + out + 64) v) times the norm, and what
rounding adds to an example's contribution to the sum is below a thousandth of the clipping norm.
An example with |a_t| or |b_t| above 1e9 contributes nothing, lest a product overflow while its
factor underflows.

bfloat16: products of matrices are rounded to bfloat16 as well.  With u = 2^-8 both Gram matrices
are off by a factor within 1 +- u, hence the squared norm by at most (2u + u^2) sum |G_ts A_ts|,
which is added; and each example's gradient is formed alone, rounded once (a factor within 1 +- u,
counted into its norm) and then scaled and added in float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from opacus.grad_sample.functorch import ft_compute_per_sample_gradient, prepare_layer
from opacus.utils.module_utils import requires_grad
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from client.clipping import clip_factors

# Below this many tokens a float32 product is cheaper than a bfloat16 one for every example.
FEW_TOKENS = 16
LARGEST = 1e9


@dataclass(frozen=True)
class _LayerCall:
    """One call of a layer in the forward pass."""

    layer: nn.Module
    inputs: Tensor
    output: Tensor


@dataclass(frozen=True)
class _Samples:
    """A small parameter: its gradients [n, *shape] are kept."""

    gradients: Tensor

    def squares(self) -> Tensor:
        """Squared norms [n]."""
        return self.gradients.flatten(1).square().sum(1)

    def weighted_sum(self, factors: Tensor) -> Tensor:
        """sum_i c_i g_i for `factors` c [n]; a gradient whose factor is 0 need not be finite."""
        positive = factors > 0
        return torch.einsum("n,n...->...", factors[positive], self.gradients[positive])


@dataclass(frozen=True)
class _Factored:
    """The weight of a linear layer: g_i = `b`_i^T `a`_i, for `a` [n, t, in] and `b` [n, t, out].

    `grams` are a a^T and b b^T, [n, t, t].
    """

    a: Tensor
    b: Tensor
    grams: tuple[Tensor, Tensor]

    def squares(self) -> Tensor:
        """Upper bounds [n] of the squared norms; infinite for an example with wild numbers."""
        grams = [gram.float() for gram in self.grams]
        products = grams[0] * grams[1]
        squares = products.sum((1, 2)).clamp(min=0.0)
        lengths = [gram.diagonal(dim1=1, dim2=2) for gram in grams]
        # |a_t| |b_t| summed over tokens: the size of what may have cancelled.
        sizes = (lengths[0].sqrt() * lengths[1].sqrt()).sum(1)
        v = torch.finfo(torch.float32).eps / 2
        squares = squares + 2 * (self.a.shape[2] + self.b.shape[2] + 64) * v * sizes.square()
        if self.b.dtype != torch.float32:
            u = torch.finfo(self.b.dtype).eps / 2
            squares = (squares + (2 * u + u * u) * products.abs().sum((1, 2))) * (1 + u) ** 2
        tame = torch.stack([x.amax(1) <= LARGEST**2 for x in lengths]).all(0)
        return torch.where(tame, squares, torch.inf)


def _weighted_sums(
    parts: Mapping[Tensor, _Samples | _Factored], factors: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Every parameter with sum_i c_i g_i; layers that read the same inputs take one product."""
    together: dict[int, list[tuple[Tensor, _Factored]]] = {}
    for parameter, part in parts.items():
        if isinstance(part, _Samples):
            yield parameter, part.weighted_sum(factors)
        else:
            together.setdefault(id(part.a), []).append((parameter, part))
    for group in together.values():
        a, outputs = group[0][1].a, [part.b for _, part in group]
        b = torch.cat(outputs, dim=2) if len(outputs) > 1 else outputs[0]
        totals = _weighted_products(a, b, factors).split([x.shape[2] for x in outputs])
        yield from zip((parameter for parameter, _ in group), totals, strict=True)


def _weighted_products(a: Tensor, b: Tensor, factors: Tensor) -> Tensor:
    """sum_i c_i b_i^T a_i, [out, in] in float32, for `a` [n, t, in] and `b` [n, t, out].

    An example whose factor is 0 need not be finite.
    """
    scale = factors.tolist()
    contributing = [i for i, factor in enumerate(scale) if factor > 0]
    if b.dtype == torch.float32 or a.shape[1] < FEW_TOKENS:
        if len(contributing) < len(a):
            a, b, factors = a[contributing], b[contributing], factors[contributing]
        scaled = b.float() * factors.view(-1, 1, 1)
        return scaled.flatten(0, 1).T @ a.flatten(0, 1).float()
    total = torch.zeros((b.shape[2], a.shape[2]), device=b.device)
    # Buffers: an addition of other dtypes would allocate one for every example.
    one = torch.empty(total.shape, dtype=b.dtype, device=b.device)
    wide = torch.empty_like(total)
    for i in contributing:
        torch.mm(b[i].T, a[i], out=one)
        total.add_(wide.copy_(one), alpha=scale[i])
    return total


class BookkeepingModule(GradSampleModuleFastGradientClipping):
    """Opacus' ghost-clipping module with one backward pass in place of two.

    Other layers than `nn.Linear` use the per-example gradients of Opacus' own samplers.  Call it on
    a batch, then `backward` on the losses of the batch's examples.
    """

    def __init__(self, module: nn.Module, clip: float, clipping_rule: str) -> None:
        super().__init__(module, max_grad_norm=clip, loss_reduction="sum", strict=False)
        self.clipping_rule = clipping_rule
        self.calls: list[_LayerCall] = []

    def add_hooks(
        self,
        *,
        loss_reduction: str = "sum",
        batch_first: bool = True,
        force_functorch: bool = False,
    ) -> None:
        """Hook the forward pass alone: output gradients are asked of autograd by name."""
        handles: list[RemovableHandle] = []
        self.autograd_grad_sample_hooks = handles
        self._module.autograd_grad_sample_hooks = handles
        for layer in self.iterate_submodules(self._module):
            if type(layer) not in self.GRAD_SAMPLERS:
                prepare_layer(layer, batch_first=batch_first)
            handles.append(layer.register_forward_hook(self.capture_activations_hook))
        self.enable_hooks()

    def capture_activations_hook(
        self, module: nn.Module, forward_input: Any, _forward_output: Tensor
    ) -> None:
        """Keep what went through a trained layer."""
        if not (requires_grad(module) and module.training and torch.is_grad_enabled()):
            return
        if any(call.layer is module for call in self.calls):
            raise NotImplementedError("a layer that is used twice has no book-keeping")
        self.calls.append(_LayerCall(module, forward_input[0], _forward_output))

    def backward(self, losses: Tensor) -> set[Tensor]:
        """Set every `p.grad` to sum_i c_i g_i for the `losses` [n] of the last batch.

        Returns the parameters for which every g_i is zero.
        """
        calls, self.calls = self.calls, []
        gradients = torch.autograd.grad(
            losses.sum(), [call.output for call in calls], allow_unused=True
        )
        parts: dict[Tensor, _Samples | _Factored] = {}
        shared: dict[tuple[int, torch.dtype], tuple[Tensor, Tensor]] = {}
        with torch.no_grad():
            for call, gradient in zip(calls, gradients, strict=True):
                if gradient is None:
                    gradient = torch.zeros_like(call.output)
                parts |= self._parts(call, gradient, shared)
            squares = torch.stack([part.squares() for part in parts.values()])
            norms = self.per_sample_gradient_norms = squares.sum(0).sqrt()
            factors = clip_factors(norms, self.max_grad_norm, self.clipping_rule)
            for parameter, total in _weighted_sums(parts, factors):
                # A copy: Opacus keeps it, and a view would keep its group's whole sum.
                parameter.grad = total.to(parameter.dtype, copy=True)
        moved = squares.any(dim=1).tolist()
        return {p for p, moves in zip(parts, moved, strict=True) if not moves}

    def _parts(
        self,
        call: _LayerCall,
        gradient: Tensor,
        shared: dict[tuple[int, torch.dtype], tuple[Tensor, Tensor]],
    ) -> dict[Tensor, _Samples | _Factored]:
        """What is kept of each parameter; `shared` has inputs that several layers read."""
        layer, inputs = call.layer, call.inputs
        tokens = gradient[0, ..., 0].numel()
        if type(layer) is not nn.Linear or _small(layer, tokens):
            known = self.GRAD_SAMPLERS.get(type(layer), ft_compute_per_sample_gradient)
            samples = known(layer, [inputs.detach()], gradient)
            return {p: _Samples(g.float()) for p, g in samples.items() if p.requires_grad}
        b = gradient.reshape(len(gradient), -1, gradient.shape[-1])
        parts: dict[Tensor, _Samples | _Factored] = {}
        if layer.weight.requires_grad:
            key = (id(inputs), b.dtype)
            if key not in shared:
                a = inputs.detach().to(b.dtype).reshape(len(b), -1, inputs.shape[-1])
                shared[key] = a, _gram(a)
            a, gram = shared[key]
            parts[layer.weight] = _Factored(a, b, (gram, _gram(b)))
        if layer.bias is not None and layer.bias.requires_grad:
            parts[layer.bias] = _Samples(b.sum(1, dtype=torch.float32))
        return parts


def _gram(vectors: Tensor) -> Tensor:
    """Products [n, t, t] of `vectors` [n, t, d] with each other."""
    return torch.bmm(vectors, vectors.transpose(1, 2))


def _small(layer: nn.Linear, tokens: int) -> bool:
    """Whether per-example gradients of the weight cost less than two Gram matrices."""
    width, height = layer.in_features, layer.out_features
    return tokens * (width + height) > width * height
