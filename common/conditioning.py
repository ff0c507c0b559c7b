"""A fixed linear map before the head that makes its problem round.

Sentence vectors of BERT models lie in a narrow cone and vary along a few directions that say little
of the label (Mu and Viswanath 2018).  A gradient points along those: clipping then leaves little of
what tells the labels apart, and only a small learning rate is stable, so that many noisy rounds
are needed.  Standardising the coordinates and bringing the leading principal directions down to the
average variance makes every direction cost alike, and a few rounds are enough.

The constants are measured once on public text (`server.calibration`), travel with the parameters,
and are folded into the classifier when the model is exported.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Directions beyond these hold about the average variance already; each costs 4 bytes a feature in
# every message.
DIRECTIONS = 32


class Conditioning(nn.Module):
    """x -> scale * (I - D D^T) ((x - center) / spread) for x [batch, features].

    `center`, `spread` are [features] and `damping` is D [features, DIRECTIONS].  Starts as a plain
    multiplication by `scale`.
    """

    center: Tensor
    spread: Tensor
    damping: Tensor

    def __init__(self, features: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.register_buffer("center", torch.zeros(features))
        self.register_buffer("spread", torch.ones(features))
        self.register_buffer("damping", torch.zeros(features, DIRECTIONS))

    def forward(self, features: Tensor) -> Tensor:
        """Conditioned features [batch, features]."""
        with torch.autocast(features.device.type, enabled=False):
            standard = (features.float() - self.center) / self.spread
            damped = standard - (standard @ self.damping) @ self.damping.T
        return damped * self.scale

    @torch.no_grad()
    def fit(self, features: Tensor) -> None:
        """Measure the constants on public vectors [rows, features], rows at least 2, in place.

        Afterwards those vectors have mean 0, a root mean square norm of 1 before `scale`, and no
        leading direction with more than about the average variance.
        """
        self.center.copy_(features.mean(0))
        deviation = features.std(0).clamp(min=1e-6)
        standard = (features - self.center) / deviation
        _, singular, directions = torch.linalg.svd(standard, full_matrices=False)
        variance = singular[:DIRECTIONS] ** 2 / (len(features) - 1)
        kept = variance.clamp(min=1.0).rsqrt()
        self.damping.zero_()
        self.damping[:, : len(kept)] = directions[:DIRECTIONS].T * (1 - kept).sqrt()
        damped = standard - (standard @ self.damping) @ self.damping.T
        self.spread.copy_(deviation * damped.norm(dim=1).square().mean().sqrt())

    @torch.no_grad()
    def fold(self, classifier: nn.Linear) -> nn.Linear:
        """The linear layer that on raw features does what `classifier` does behind this map."""
        weight = classifier.weight.double()
        damping = self.damping.double()
        weight = self.scale * (weight - (weight @ damping) @ damping.T) / self.spread.double()
        folded = nn.Linear(classifier.in_features, classifier.out_features)
        folded.weight.copy_(weight)
        folded.bias.copy_(classifier.bias.double() - weight @ self.center.double())
        return folded
