"""MinMax (Shejwalkar and Houmansadr 2021, "Manipulating the Byzantine")."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from strategies.attacks.direction import direction, largest_step
from strategies.attacks.kinds import Aggregate
from strategies.rows import Rows


@dataclass(frozen=True)
class MinMax:
    """As far from the honest mean as possible, no farther from any honest row than they are
    from each other.

    Attributes:
        along: ``std``, ``sign`` or ``unit``: the perturbation, against the honest mean.
    """

    along: str = "std"

    def __post_init__(self) -> None:
        direction(torch.zeros(2, 1), self.along)

    def craft(
        self, honest: Tensor, own: Tensor, aggregate: Aggregate, generator: Generator
    ) -> Tensor:
        """``mean + gamma * direction``, gamma solved from one quadratic per honest row."""
        mean, push = honest.mean(0), direction(honest, self.along)
        bound = Rows(honest).distances.max()
        gaps = (mean - honest).double()
        linear, constant = gaps @ push.double(), (gaps**2).sum(1) - bound
        gamma = largest_step(float(push.double() @ push.double()), linear, constant).min()
        return (mean + float(gamma) * push).expand_as(own)
