"""Client-level differential privacy: clip each partner's update, add noise at the server.

The unit is a whole partner, all of its records at once.  A round releases

    (1 / m) * (sum over replies i of clip(x_i, C) + N(0, (z C)^2 I)),

where m is the number of partners *asked*, a public number: not of those that replied.

Sensitivity: with one partner's reply taken away (it does not answer, or screening refuses it), all
other terms and the denominator stay as they are, so the sum changes by clip(x_i, C), at most C in
L2 norm, whatever the partner sends.  That needs weights that do not depend on the other partners
and are bounded: here all are 1/m.  Weights scaled to sum 1 (every rule but uniform), adaptive
clipping, mixing of rows, robust rules and appeals let one partner change what the others count, so
the proof does not hold and `refusal` names them.  Static clipping acts on each row alone and may
stay.  The server optimiser, averaging and export are post-processing.

Accounting: each round is a Gaussian mechanism of noise multiplier z; k rounds compose to one of
z / sqrt(k), whose epsilon is exact (Balle and Wang, "Improving the Gaussian Mechanism for
Differential Privacy", 2018, theorem 8).  Sampling of partners is given no credit: the sample is of
a fixed size and follows from the run's seed, which is published.

Assumes a server that adds the noise and keeps updates, decisions and the noise to itself (partners
and the public see global models only), and noise from the operating system; a simulation seeds it.
What partners report of their validation rows is not covered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scipy.optimize import brentq
from scipy.special import log_ndtr
from torch import Tensor

from common.grid import GaussianMechanism
from common.randomness import Stream
from strategies import checks
from strategies.fair.uniform import Uniform
from strategies.pre.static_clipping import StaticClipping
from strategies.robust.mean import Mean


@dataclass(frozen=True)
class ClientLevel:
    """Settings of the stage.

    Attributes:
        clip: C, the largest norm of an update.
        noise_multiplier: z, the noise's standard deviation over C.
        delta: the delta at which epsilon is told; below one over the number of partners.
    """

    clip: float = 1.0
    noise_multiplier: float = 1.0
    delta: float = 1e-3

    def __post_init__(self) -> None:
        checks.number("clip", self.clip, 0.0, above=True)
        checks.number("noise_multiplier", self.noise_multiplier, 0.0, above=True)
        checks.number("delta", self.delta, 0.0, 1.0, above=True, below=True)

    def noised(self, update: Tensor, asked: int, stream: Stream) -> Tensor:
        """The sum over m, with noise of standard deviation z C / m in each of its d entries.

        On a public grid, whose rounding is part of the sensitivity C / m (`common.grid`).
        """
        mechanism = GaussianMechanism(
            self.clip / asked, self.noise_multiplier, update.numel(), stream
        )
        return mechanism.release(update).to(update.device, update.dtype)

    def spent(self, rounds: int) -> dict[str, float]:
        """What `rounds` rounds cost, for results.json."""
        return {
            "epsilon": gaussian_epsilon(self.noise_multiplier, rounds, self.delta),
            "delta": self.delta,
            "clip": self.clip,
            "noise_multiplier": self.noise_multiplier,
        }


def gaussian_epsilon(noise_multiplier: float, rounds: int, delta: float) -> float:
    """The exact epsilon of `rounds` Gaussian mechanisms, rounded up.

    delta(epsilon) = Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu), mu = sqrt(k) / z.
    """
    if rounds == 0:
        return 0.0
    mu = math.sqrt(rounds) / noise_multiplier

    def excess(epsilon: float) -> float:
        first = float(log_ndtr(mu / 2 - epsilon / mu))
        second = epsilon + float(log_ndtr(-mu / 2 - epsilon / mu))
        return first + math.log1p(-math.exp(min(second - first, -1e-300))) - math.log(delta)

    # Above this the first term alone is below delta.
    high = mu * mu / 2 + mu * math.sqrt(2 * math.log(1 / delta)) + 1e-6
    if excess(0.0) <= 0:
        return 0.0
    return float(brentq(excess, 0.0, high, xtol=1e-12)) * (1 + 1e-9) + 1e-9


def refusal(pre: Mapping[str, Any], fair: object, robust: object, appeal: object) -> str | None:
    """The first stage beside which the sensitivity proof does not hold, by name and why."""
    for name, stage in pre.items():
        if type(stage) is not StaticClipping:
            return f"strategy.pre.{name}: {type(stage).__name__} lets one partner change others"
    if type(fair) is not Uniform:
        return f"strategy.fair: {type(fair).__name__} has weights that depend on other partners"
    if type(robust) is not Mean:
        return f"strategy.robust: {type(robust).__name__} is not a mean with bounded weights"
    if appeal is not None:
        return "strategy.appeal: an appeal changes the weights by looking at updates"
    return None
