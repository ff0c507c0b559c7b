"""The smallest noise multiplier that a budget allows.

All searches use that more noise never costs more: the noise multipliers that suffice are those
above some number, which a bracket encloses and bisection narrows down.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

from scipy.optimize import brentq

from client.accounting.composition import bound
from client.accounting.mechanisms import BudgetExceeded, Segment, check_delta_range, merge
from client.accounting.rdp import WHOLE_ORDERS, best_epsilon, divergences
from common.refusals import Reason

# calibrate() stops when the noise multiplier is this close above the smallest admissible one, and
# aims this far below the target, so that rounding between nearly equal compositions (the last
# rounds of a run, reserved one by one) never exceeds a target that the whole run meets.
_SIGMA_TOLERANCE = 1e-3
_TARGET_MARGIN = 5e-4
_LARGEST_SIGMA = 1e6


def calibrate(
    target_epsilon: float,
    delta: float,
    sample_rate: float,
    steps: int,
    spent: Sequence[Segment] = (),
    *,
    dataset: str = "",
) -> float:
    """Smallest noise multiplier that keeps ``spent`` plus the new steps within the target.

    The result lies at most 0.1 % above the smallest one for which the reported epsilon is below
    0.9995 of the target, and never exceeds the target.  ``dataset`` is for the partner's own log.

    Raises:
        BudgetExceeded: if nothing is left, or no noise multiplier up to a million is enough.
        ValueError: if an argument is outside its range.
    """
    check_delta_range(delta)
    if not target_epsilon > 0:
        raise ValueError(f"target epsilon is {target_epsilon}, not above 0")
    if steps < 1 or not 0 < sample_rate <= 1:
        raise ValueError(f"nothing to calibrate: sample rate {sample_rate}, {steps} steps")
    try:
        return _calibrate(
            float(target_epsilon), float(delta), float(sample_rate), int(steps), merge(spent)
        )
    except BudgetExceeded as error:
        if not dataset:
            raise
        detail = f"data set {dataset!r}: {error.detail}"
        raise BudgetExceeded(detail, error.reason, error.key) from None


@lru_cache(maxsize=256)
def _calibrate(
    target: float, delta: float, rate: float, steps: int, spent: tuple[Segment, ...]
) -> float:
    already = bound(spent, delta).value
    if already >= target:
        raise BudgetExceeded(
            f"nothing is left of the budget: epsilon {already:.4g} of {target:.4g} is spent"
        )
    goal = target * (1 - _TARGET_MARGIN)

    def composed(sigma: float) -> tuple[Segment, ...]:
        return merge((*spent, Segment(sigma, rate, steps)))

    def enough_by_rdp(sigma: float) -> bool:
        curve = divergences(composed(sigma), WHOLE_ORDERS)
        return best_epsilon(curve, WHOLE_ORDERS, delta)[0] <= goal

    # By RDP first: cheap, and its answer is an upper end, because the reported epsilon is at most
    # RDP's.
    high = smallest_noise(enough_by_rdp, 1.01)
    if high is None:
        high = _upper_bracket(lambda sigma: bound(composed(sigma), delta).value <= goal)
    if high is None:
        raise BudgetExceeded(
            f"epsilon {target:.4g} cannot be met: {already:.4g} of it is spent, and "
            f"{steps} more steps at sampling rate {rate:.4g} need more noise than is useful; "
            "ask for a larger epsilon or fewer steps",
            Reason.TOO_MUCH_NOISE,
            "privacy.epsilon",
        )
    return _tighten(lambda sigma: bound(composed(sigma), delta).value, high, goal)


def smallest_noise(enough: Callable[[float], bool], ratio: float) -> float | None:
    """The smallest noise multiplier that is `enough`, by bisection.

    Args:
        enough: whether a noise multiplier suffices; if one does, so must every larger one.
        ratio: how far the result may lie above the smallest one, as a factor above 1.

    Returns:
        a noise multiplier that is enough, or None where not even a million is.
    """
    high = _upper_bracket(enough)
    if high is None:
        return None
    low = high / 2
    while enough(low):
        low, high = low / 2, low
    while high / low > ratio:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _upper_bracket(enough: Callable[[float], bool]) -> float | None:
    """The first power of four from 1/4 to a million that is ``enough`` noise, or None."""
    sigma = 0.25
    while sigma <= _LARGEST_SIGMA:
        if enough(sigma):
            return sigma
        sigma *= 4
    return None


def _tighten(spends: Callable[[float], float], high: float, goal: float) -> float:
    """Smallest sigma with ``spends(sigma) <= goal``, from ``high``, which satisfies it.

    Brent's method on (log sigma, log epsilon), which is nearly straight, so that few evaluations
    are needed; the root is then moved to the safe side.
    """

    def excess(log_sigma: float) -> float:
        spent = spends(math.exp(log_sigma))
        return math.log(min(max(spent, 1e-12), 1e12) / goal)

    upper = math.log(high)
    lower, step, at_upper = upper - 0.03, 0.03, excess(upper)
    while (at_lower := excess(lower)) <= 0:
        # Extrapolate to a little beyond the root.
        slope = max((at_lower - at_upper) / step, 1e-3)
        upper, at_upper = lower, at_lower
        step = min(max(-1.2 * at_lower / slope, 0.01), 0.7)
        lower = upper - step
    sigma = math.exp(brentq(excess, lower, upper, xtol=_SIGMA_TOLERANCE / 4))
    while spends(sigma) > goal:
        sigma *= 1 + _SIGMA_TOLERANCE / 2
    return sigma
