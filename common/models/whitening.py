"""Feature whitening: a fixed linear map before the head that makes its problem well-conditioned.

Sentence vectors of BERT models occupy a narrow cone and vary most along a few directions that say
little about the label (Mu and Viswanath 2018).  Gradients point along those directions.  Clipping
then removes most of the signal, and only a small learning rate is stable, so that many noisy rounds
are needed.  Standardising the coordinates and reducing the leading principal directions to the
average variance puts all directions on one scale, and a few rounds are enough.

The constants are measured once on public text (`server.calibration`), travel with the parameters,
and are folded into the classifier when the model is exported.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Further directions have about the average variance already; each one costs 4 bytes per feature in
# every message.
DIRECTIONS = 32


class FeatureWhitening(nn.Module):
    """x -> scale * (I - D D^T) ((x - center) / spread) for x [batch, features].

    `center` and `spread` are [features]; `damping` is D [features, DIRECTIONS].  Before `fit` it is
    a plain multiplication by `scale`.
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
        """Whitened features [batch, features]."""
        with torch.autocast(features.device.type, enabled=False):
            standard = (features.float() - self.center) / self.spread
            damped = standard - (standard @ self.damping) @ self.damping.T
        return damped * self.scale

    @torch.no_grad()
    def fit(self, features: Tensor) -> None:
        """Measure the constants on public vectors [rows, features] with at least two rows.

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
        """The linear layer on raw features that equals this map followed by `classifier`."""
        weight = classifier.weight.double()
        damping = self.damping.double()
        weight = self.scale * (weight - (weight @ damping) @ damping.T) / self.spread.double()
        folded = nn.Linear(classifier.in_features, classifier.out_features)
        folded.weight.copy_(weight)
        folded.bias.copy_(classifier.bias.double() - weight @ self.center.double())
        return folded
