"""IA³: a learnt scale on attention keys, attention values and what the feed-forward part computes.

Liu et al. 2022, "Few-shot parameter-efficient fine-tuning is better and cheaper than in-context
learning".  The method is peft's; the layer is our own, because peft keeps its scales in a
ParameterDict, on which no hook of Opacus can see a record's gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# The linear layers of the supported families whose output (attention) or input (feed-forward) is
# scaled, by the end of their name.
OUTPUTS = ("key", "value", "k_lin", "v_lin")
INPUTS = ("output.dense", "lin2")


class Scale(nn.Module):
    """x -> x * weight, [..., features]; starts as the identity."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
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
        found: Tensor = self.base(self.scale(x)) if self.on_input else self.scale(self.base(x))
        return found

    @torch.no_grad()
    def folded(self) -> nn.Linear:
        """The plain linear layer that does the same; `base` is changed."""
        if self.on_input:
            self.base.weight.mul_(self.scale.weight)
        else:
            self.base.weight.mul_(self.scale.weight.unsqueeze(1))
            if self.base.bias is not None:
                self.base.bias.mul_(self.scale.weight)
        return self.base


def scale_layers(layers: nn.Module) -> None:
    """Put scales into encoder layers, in place."""
    for parent_name, parent in list(layers.named_modules()):
        for name, child in list(parent.named_children()):
            path = f"{parent_name}.{name}"
            # The feed-forward part alone: attention.output.dense ends in the same two words.
            on_input = path.endswith(INPUTS) and "attention" not in path
            if isinstance(child, nn.Linear) and (on_input or name in OUTPUTS):
                setattr(parent, name, ScaledLinear(child, on_input))
