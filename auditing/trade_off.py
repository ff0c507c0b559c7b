"""How well a Gaussian training lets anybody test whether a record took part.

A trade-off function gives, for every test of "this record took part", the smallest false-positive
rate at which a true-positive rate can be had (Dong, Roth, Su, "Gaussian Differential Privacy",
2019, arXiv:1905.02383).  It says all about the privacy of a mechanism, where (epsilon, delta) says
one point of it.  Here it is that of `steps` Poisson-sampled Gaussian releases: exact when every
record takes part in every step, and otherwise bounded by the accountant's privacy profile.  A
bound errs towards less privacy, so an audit that uses it proves less, never too much.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from client.accounting import Segment, privacy_profile

# The least false-positive rate at which a test can reach the given true-positive rate.
TradeOff = Callable[[float], float]
# Epsilons of the lines that bound a trade-off function from below.
_EPSILONS = np.concatenate([np.linspace(0.0, 3.0, 61), np.linspace(3.1, 12.0, 90)])


def gaussian(mu: float) -> TradeOff:
    """Of N(0, 1) against N(mu, 1), the exact trade-off function of a Gaussian release."""
    return lambda power: float(ndtr(ndtri(power) - mu))


def from_profile(epsilons: npt.NDArray[np.float64], deltas: npt.NDArray[np.float64]) -> TradeOff:
    """Of whatever is (epsilon, delta)-private, in both directions, for each of the pairs [n].

    Each pair says that power <= e^epsilon level + delta, and the same of the opposite decision,
    1 - level <= e^epsilon (1 - power) + delta; the strictest pair counts.
    """
    growth = np.exp(epsilons)

    def least(power: float) -> float:
        low = (power - deltas) / growth
        high = 1.0 - deltas - growth * (1.0 - power)
        return max(float(low.max()), float(high.max()), 0.0)

    return least


@lru_cache(maxsize=256)
def sampled_gaussian(noise_multiplier: float, rate: float, steps: int) -> TradeOff:
    """Of `steps` Gaussian releases in which a record takes part with probability `rate`.

    Where the accountant cannot compute the profile (hardly any noise), that of `rate` = 1 bounds
    it: sampling only makes a training more private.
    """
    whole = gaussian(math.sqrt(steps) / noise_multiplier)
    if rate == 1.0:
        return whole
    try:
        deltas = privacy_profile([Segment(noise_multiplier, rate, steps)], _EPSILONS)
    except ArithmeticError:
        return whole
    return from_profile(_EPSILONS, deltas)
