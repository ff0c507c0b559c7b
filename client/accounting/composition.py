"""Bounds on the epsilon, or the delta, of mechanisms that are composed: the better accountant's.

PRV's slack of delta / 1000 covers the floating-point error of its Fourier transforms down to
delta = 1e-10; below that RDP is used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from client.accounting import prv
from client.accounting.mechanisms import Epsilon, Segment, check_delta_range, merge
from client.accounting.rdp import Array, composed_epsilon

# What PRV raises where its discretisation does not work out.
_PRV_FAILURES = (ArithmeticError, ValueError, RuntimeError, IndexError, MemoryError)


def epsilon(segments: Sequence[Segment], delta: float) -> Epsilon:
    """Upper bound on the epsilon, at ``delta``, of all ``segments`` composed.

    Each mechanism may depend on the outputs before it, but the segments themselves must not: see
    the package, and `client/lifetime.py` for segments that were chosen on the way.

    PRV is used unless it fails on its discretisation, is not finite, or contradicts RDP (RDP is an
    upper bound, so PRV's proven lower end may not lie above it); then RDP, and ``note`` says so.
    No segments cost 0; a segment without noise costs infinity.

    Raises:
        ValueError: if delta is not between 0 and 1.
    """
    check_delta_range(delta)
    return bound(merge(segments), float(delta))


def least_epsilon(segments: Sequence[Segment], delta: float) -> float:
    """Lower bound on the epsilon, at ``delta``, of all ``segments`` composed: PRV's proven end.

    0 where PRV cannot tell; infinity for a segment without noise.  Audits need it: what they
    report must not lie above the truth, and :func:`epsilon` never lies below it.

    Raises:
        ValueError: if delta is not between 0 and 1.
    """
    check_delta_range(delta)
    merged = merge(segments)
    if any(segment.noise_multiplier == 0 for segment in merged):
        return math.inf
    if not merged:
        return 0.0
    try:
        lower, _ = prv.epsilon_bounds(merged, delta, composed_epsilon(merged, delta))
    except _PRV_FAILURES:
        return 0.0
    return max(lower, 0.0) if math.isfinite(lower) else 0.0


def privacy_profile(segments: Sequence[Segment], epsilons: Array) -> Array:
    """Upper bounds on the delta of all ``segments`` composed, one for each of ``epsilons`` >= 0.

    By PRV, for whichever direction (a record removed or added) has the larger delta.  They exceed
    the truth by about a millionth, so they serve where delta is not small.

    Raises:
        ArithmeticError: if PRV fails on its discretisation, as it does with hardly any noise.
    """
    merged = merge(segments)
    if any(segment.noise_multiplier == 0 for segment in merged):
        return np.ones(len(epsilons))
    if not merged:
        return np.zeros(len(epsilons))
    try:
        return prv.profile(merged, epsilons)
    except _PRV_FAILURES as failure:
        raise ArithmeticError(f"PRV failed: {failure}") from failure


@lru_cache(maxsize=1024)
def bound(merged: tuple[Segment, ...], delta: float) -> Epsilon:
    """:func:`epsilon` of segments that are merged already."""
    if not merged:
        return Epsilon(0.0, "prv", 0.0, 0.0)
    by_rdp = composed_epsilon(merged, delta)
    if any(segment.noise_multiplier == 0 for segment in merged):
        return Epsilon(math.inf, "rdp", None, math.inf, "a release without noise")
    try:
        lower, upper = prv.epsilon_bounds(merged, delta, by_rdp)
        if upper < 0.8 * by_rdp:
            # The error was chosen relative to RDP's bound, which is far off: choose it again.
            lower, upper = prv.epsilon_bounds(merged, delta, upper)
    except _PRV_FAILURES as failure:
        return Epsilon(by_rdp, "rdp", None, by_rdp, f"PRV failed ({failure}), so RDP is used")
    if not (math.isfinite(lower) and math.isfinite(upper)):
        return Epsilon(by_rdp, "rdp", None, by_rdp, "PRV is not finite, so RDP is used")
    if lower > by_rdp:
        note = f"PRV says at least {lower:.6g}, above RDP's bound, so RDP is used"
        return Epsilon(by_rdp, "rdp", None, by_rdp, note)
    upper = max(upper, 0.0)
    if upper <= by_rdp:
        return Epsilon(upper, "prv", upper, by_rdp)
    return Epsilon(by_rdp, "rdp", upper, by_rdp, "RDP is the smaller bound here")
