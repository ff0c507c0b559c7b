"""What counts against a partner's lifetime limit, where later runs were chosen after earlier ones.

The limit (epsilon, delta) is for everything that a record is ever exposed to.  A later run's noise
multiplier, sampling rate and length depend on what earlier runs released: the coordinator has seen
it, and the noise is solved for what is left.  Composition theorems for privacy curves, PRV among
them, do not cover that ("fully adaptive" composition; Rogers, Roth, Ullman, Vadhan 2016), and
stopping where a composed curve reaches the limit is not private in general.  So three rules are
used, each where it is proven, and each at half of the limit's delta:

* One run (``planned``) whose steps all have the noise multiplier and the sampling rate of the first
  one: then the largest number of steps within the limit is fixed by the first step too, and
  dominates however many are taken.  The composition of privacy curves counts
  (:func:`client.accounting.epsilon`).
* Noisy metrics of any number of runs (``planned`` too): all of them are Gaussian mechanisms on all
  records of one side.  Those form a totally ordered family, mu = sqrt(sum 1 / sigma^2), and for it
  the filter at mu is valid, however the sigmas were chosen (Smith and Thakurta 2022; Koskela,
  Tobaben, Honkela 2022).
* All else: a Rényi filter.  At one order, fixed by the limit alone, the sum of the Rényi
  divergences of all mechanisms stays below a bound, however they were chosen (Feldman and Zrnic
  2021; Lécuyer 2021; Whitehouse et al. 2023 for concentrated privacy).

Half of delta each: sort what can come out into A, where only one of the first two rules was ever
needed (which of them, the side of the record tells beforehand), and B, where the filter was.  On A
the whole process equals one that was stopped before it would leave the first rule, on B one that
was stopped by the filter.  So for every event O, P(O) = P(O and A) + P(O and B) <=
e^epsilon Q(O and A) + delta / 2 + e^epsilon Q(O and B) + delta / 2 = e^epsilon Q(O) + delta.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from client.accounting import (
    Budget,
    BudgetExceeded,
    Segment,
    calibrate,
    epsilon,
    rdp_epsilon,
    renyi,
    smallest_noise,
)

_ORDERS = (*range(2, 64), *range(64, 513, 16))
# How far solved noise may lie above the smallest that suffices.
_RATIO = 1.001
# Solved noise stays this far below the limit: rounds are reserved one by one, and their sum rounds.
_MARGIN = 5e-4


def counted(segments: Sequence[Segment], limit: Budget, *, planned: bool) -> float:
    """The epsilon that ``segments`` count against ``limit``; the module explains by which rule.

    It must not exceed ``limit.epsilon`` after any reservation.
    """
    if planned:
        return epsilon(segments, limit.delta / 2).value
    if not segments:
        return 0.0
    order = filter_order(limit)
    return renyi(segments, order) + _conversion(order, limit.delta / 2)


def allowed(segments: Sequence[Segment], limit: Budget, *, planned: bool) -> bool:
    """Whether ``segments`` in all stay within ``limit``."""
    # Cheap, and an upper bound of what composing the curves gives.
    if planned and rdp_epsilon(segments, limit.delta / 2) <= limit.epsilon:
        return True
    return counted(segments, limit, planned=planned) <= limit.epsilon


def noise_within(
    limit: Budget,
    sample_rate: float,
    steps: int,
    spent: Sequence[Segment],
    *,
    planned: bool,
    dataset: str = "",
) -> float:
    """Smallest noise multiplier, within 0.1 %, that keeps ``spent`` and the new steps in ``limit``.

    Raises:
        BudgetExceeded: if nothing is left, or no noise multiplier up to a million is enough.
    """
    if planned:
        half = limit.delta / 2
        return calibrate(limit.epsilon, half, sample_rate, steps, spent, dataset=dataset)

    def fits(sigma: float) -> bool:
        new = Segment(sigma, sample_rate, steps)
        return counted([*spent, new], limit, planned=False) <= limit.epsilon * (1 - _MARGIN)

    sigma = smallest_noise(fits, _RATIO)
    if sigma is None:
        already = counted(spent, limit, planned=False)
        raise BudgetExceeded(
            f"data set {dataset!r}: nothing useful is left of the budget: earlier runs count "
            f"epsilon {already:.4g} of {limit.epsilon:.4g}, and {steps} more steps at sampling "
            f"rate {sample_rate:.4g} need more noise than is useful"
        )
    return sigma


@lru_cache(maxsize=64)
def filter_order(limit: Budget) -> int:
    """The filter's Rényi order: that at which a plain Gaussian may use the limit best.

    It depends on the limit alone, as the proof of the filter needs.
    """

    def precision(order: int) -> float:
        # A Gaussian's divergence is order / (2 sigma^2).
        return 2 * (limit.epsilon - _conversion(order, limit.delta / 2)) / order

    best: int = max(_ORDERS, key=precision)
    return best


def _conversion(order: float, delta: float) -> float:
    """What turns a divergence at ``order`` into an epsilon (Balle et al. 2020, theorem 21)."""
    return math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)
