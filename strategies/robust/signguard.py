"""SignGuard (Xu et al. 2022, "Byzantine-robust federated learning through sign statistics")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from strategies import checks
from strategies.pre.clipping import clip_factors
from strategies.rows import Rows
from strategies.stage import Context, RobustRule, RuleResult, State
from strategies.weights import selected_weights


@dataclass(frozen=True)
class SignGuard(RobustRule):
    """Average the rows of usual norm and usual signs, clipped to the median norm.

    A row is kept when its norm over the median norm lies in [lower, upper] and its fractions of
    positive, zero and negative entries fall into the largest cluster (mean shift).

    Attributes:
        f: malicious partners to tolerate; used to check n > 2f.
        lower, upper: admitted norms, as multiples of the median norm.
        columns: columns drawn for the sign fractions (the paper draws a tenth of all).
    """

    f: int = 1
    lower: float = 0.1
    upper: float = 3.0
    columns: int = 16_384
    title: ClassVar[str] = "SignGuard"
    score_name: ClassVar[str | None] = "sign distance"

    def __post_init__(self) -> None:
        checks.whole("f", self.f, 0)
        checks.whole("columns", self.columns, 1)
        checks.number("lower", self.lower, 0.0, 1.0)
        checks.number("upper", self.upper, 1.0)

    def check(self, n: int) -> None:
        """Raise UserError unless n > 2f."""
        checks.majority("signguard", n, self.f)

    def apply(self, rows: Rows, weights: Tensor, state: State, context: Context) -> RuleResult:
        """The weighted mean of the clipped rows that pass both filters."""
        norms = rows.norms
        median = float(norms.median())
        usual = (norms >= self.lower * median) & (norms <= self.upper * median)
        if self.columns >= rows.size:
            index = torch.arange(rows.size)
        else:
            index = torch.randint(rows.size, (self.columns,), generator=context.generator)
        features = sign_fractions(rows.columns(index))
        cluster = largest_cluster(features)
        good = usual & cluster
        # Both filters hold a majority of honest rows, but need not meet: norms alone then decide.
        kept = good if bool(good.any()) else usual
        shares = selected_weights(weights, kept.nonzero().squeeze(1))
        factors = clip_factors(norms, median)
        scores = torch.linalg.vector_norm(features - features[cluster].mean(0), dim=1)
        return RuleResult(rows.combine(shares * factors), shares, scores, state, clip=factors)


def sign_fractions(sample: Tensor) -> Tensor:
    """Fractions of positive, zero and negative entries of each row, float64 [n, 3]."""
    positive = (sample > 0).sum(1).double() / sample.shape[1]
    negative = (sample < 0).sum(1).double() / sample.shape[1]
    return torch.stack([positive, 1 - positive - negative, negative], dim=1)


def largest_cluster(points: Tensor) -> Tensor:
    """Mask of the largest cluster of mean shift with a flat kernel (Comaniciu and Meer 2002).

    The bandwidth is the mean distance of the points to their n/2-th nearest.
    """
    n = len(points)
    distances = torch.cdist(points, points)
    bandwidth = float(distances.sort(1).values[:, max(n // 2, 1) - 1].mean())
    if bandwidth <= 0:
        # More than half of the points coincide: they are the cluster.
        return (distances <= 0).double().sum(1) * 2 > n
    modes = points.clone()
    for _ in range(300):
        near = (torch.cdist(modes, points) <= bandwidth).double()
        moved = (near @ points) / near.sum(1, keepdim=True)
        change = float(torch.linalg.vector_norm(moved - modes, dim=1).max())
        modes = moved
        if change < 1e-3 * bandwidth:
            break
    crowd = (torch.cdist(modes, points) <= bandwidth).sum(1)
    centres: list[Tensor] = []
    for i in crowd.argsort(descending=True, stable=True).tolist():
        if all(float((modes[i] - c).norm()) > bandwidth for c in centres):
            centres.append(modes[i])
    labels = torch.cdist(points, torch.stack(centres)).argmin(1)
    return labels == labels.mode().values
