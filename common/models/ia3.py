"""IA³: learnt scales on attention keys, attention values and feed-forward activations.

Liu et al. 2022, "Few-shot parameter-efficient fine-tuning is better and cheaper than in-context
learning".  peft implements the same method, but keeps its scales in a ParameterDict, for which
Opacus cannot compute per-example gradients; hence this layer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from common.models.families import Family


class Scale(nn.Module):
    """x -> x * weight, [..., features]; starts as the identity."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        """x, scaled: the same shape."""
        return x * self.weight


class ScaledLinear(nn.Module):
    """A frozen linear layer with a trained scale on its input or its output."""

    def __init__(self, base: nn.Linear, on_input: bool) -> None:
        super().__init__()
        self.base = base
        self.on_input = on_input
        self.scale = Scale(base.in_features if on_input else base.out_features)

    def forward(self, x: Tensor) -> Tensor:
        """[..., out features] from [..., in features]."""
        scaled: Tensor = self.base(self.scale(x)) if self.on_input else self.scale(self.base(x))
        return scaled

    @torch.no_grad()
    def folded(self) -> nn.Linear:
        """The equivalent plain linear layer, which is `base`, changed in place."""
        if self.on_input:
            self.base.weight.mul_(self.scale.weight)
        else:
            self.base.weight.mul_(self.scale.weight.unsqueeze(1))
            if self.base.bias is not None:
                self.base.bias.mul_(self.scale.weight)
        return self.base


def scale_layers(layers: nn.Module, family: Family) -> None:
    """Put scales into encoder layers of a family, in place."""
    for parent_name, parent in list(layers.named_modules()):
        for name, child in list(parent.named_children()):
            path = f"{parent_name}.{name}"
            # In the feed-forward part alone: attention.output.dense has the same end.
            on_input = path.endswith(family.scaled_inputs) and "attention" not in path
            if isinstance(child, nn.Linear) and (on_input or name in family.scaled_outputs):
                setattr(parent, name, ScaledLinear(child, on_input))
