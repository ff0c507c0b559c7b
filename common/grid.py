"""The Gaussian mechanism for the numbers that are really sent: sums on a public grid.

A sum is rounded to multiples of a public power of two, the step, and the noise is a rounded
Gaussian on the same grid (`common.gaussian`).

Sensitivity, rounding included.  Let two neighbouring data sets have sums S and S', at most D apart
in L2 norm, of d numbers each.  Rounding moves every number by at most half a step, so the rounded
sums are at most D + step * sqrt(d) apart.  The step is the largest power of two with
step * sqrt(d) <= D / 2048, so this is at most D (1 + 2^-11).  As much again is left for the float32
arithmetic of the sums themselves: adding up n terms of norm D in float32 errs by at most
n^2 2^-24 D, which is below 2^-11 D up to n = 90 (a physical batch; these are added in float64).
The noise is z D (1 + 2^-10): its standard deviation is at least z times the sensitivity of what is
released, which is what a `Segment(noise_multiplier=z)` says.  The step depends on D and d alone,
which are public.

On the grid the sum and the noise are whole numbers below 2^53, so that adding them in float64 is
exact.  What follows (conversion to float32, division by a constant, an optimiser) is
post-processing.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from common.gaussian import rounded_gaussian
from common.randomness import Stream

Floats = npt.NDArray[np.float64]
# What rounding, half to the grid and half of float32 sums, adds to a sensitivity, relative to it.
ROUNDING = 2.0**-10


def grid_step(sensitivity: float, size: int) -> float:
    """The largest power of two that is at most ROUNDING / 2 * sensitivity / sqrt(size).

    Raises ValueError when the sensitivity is not a positive number.
    """
    if not (math.isfinite(sensitivity) and sensitivity > 0):
        raise ValueError(f"the sensitivity must be a positive number, got {sensitivity}")
    _, exponent = math.frexp(ROUNDING / 2 * sensitivity / math.sqrt(max(size, 1)))
    return math.ldexp(1.0, exponent - 1)


class GaussianMechanism:
    """Releases of one vector of `size` numbers, in as many parts as it has tensors.

    Args:
        sensitivity: D, the L2 sensitivity of the whole vector.
        noise_multiplier: z >= 0; with 0 the sum is rounded and no noise is added.
        size: d, the numbers of all parts together.
        stream: where the noise comes from.
    """

    def __init__(
        self, sensitivity: float, noise_multiplier: float, size: int, stream: Stream
    ) -> None:
        self.step = grid_step(sensitivity, size)
        self.deviation = noise_multiplier * sensitivity * (1.0 + ROUNDING)
        self.stream = stream

    def release(self, part: Tensor) -> Tensor:
        """The noisy `part`, float64 on the CPU: multiples of the step.

        A number that is not finite counts as 0, so that its absence cannot be told from the reply.
        """
        units = part.detach().to("cpu", torch.float64).nan_to_num(0.0, 0.0, 0.0)
        units = units.div(self.step).round_()
        noise = rounded_gaussian(self.stream, self.deviation / self.step, units.numel())
        return units.add_(torch.from_numpy(noise).view(units.shape)).mul_(self.step)


def release_counts(
    values: Floats, sensitivity: float, noise_multiplier: float, stream: Stream
) -> Floats:
    """Noisy `values` [d] whose joint L2 sensitivity is `sensitivity`, as one release."""
    flat = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64))
    mechanism = GaussianMechanism(sensitivity, noise_multiplier, flat.numel(), stream)
    noisy: Floats = mechanism.release(flat).numpy()
    return noisy
