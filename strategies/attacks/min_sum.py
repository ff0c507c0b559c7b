"""MinSum (Shejwalkar and Houmansadr 2021, "Manipulating the Byzantine")."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from strategies.attacks.direction import direction, largest_step
from strategies.attacks.kinds import Aggregate
from strategies.rows import Rows


@dataclass(frozen=True)
class MinSum:
    """As far from the honest mean as possible, its squared distances to the honest rows summing
    to no more than those of some honest row.

    Attributes:
        along: ``std``, ``sign`` or ``unit``: the perturbation, against the honest mean.
    """

    along: str = "std"

    def __post_init__(self) -> None:
        direction(torch.zeros(2, 1), self.along)

    def craft(
        self, honest: Tensor, own: Tensor, aggregate: Aggregate, generator: Generator
    ) -> Tensor:
        """``mean + gamma * direction``, gamma solved from one quadratic."""
        mean, push = honest.mean(0), direction(honest, self.along)
        bound = Rows(honest).distances.sum(1).max()
        spread = ((mean - honest).double() ** 2).sum()
        # The linear terms of the rows cancel: their gaps to the mean sum to zero.
        square = len(honest) * float(push.double() @ push.double())
        gamma = largest_step(square, torch.zeros(()).double(), spread - bound)
        return (mean + float(gamma) * push).expand_as(own)
