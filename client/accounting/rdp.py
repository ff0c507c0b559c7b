"""Rényi differential privacy of the sampled Gaussian mechanism, and epsilon from it.

Per step as in Mironov, Talwar, Zhang, 2019 (arXiv:1908.10530), composed by addition, converted to
epsilon as in Balle et al., 2020 (arXiv:1905.09982, theorem 21).  Every order gives an upper bound;
the smallest one counts.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import cast

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln, logsumexp, xlog1py, xlogy

from client.accounting.mechanisms import Segment, check_delta_range, merge

Array = npt.NDArray[np.float64]
# Rényi orders: dense where training lies, sparse and far for the very noisy and the nearly exact.
WHOLE_ORDERS = (*range(2, 64), 64, 72, 80, 96, 112, 128, 160, 192, 256, 384, 512)
# These are slow to evaluate and matter only for a large epsilon.
_FRACTIONAL_ORDERS = (
    *(1.01, 1.02, 1.05, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9),
    *(2.25, 2.5, 2.75, 3.5, 4.5),
)
_ORDERS: tuple[float, ...] = (*WHOLE_ORDERS, *_FRACTIONAL_ORDERS)


def rdp_epsilon(segments: Sequence[Segment], delta: float) -> float:
    """Upper bound by RDP alone: looser than :func:`epsilon` and much faster."""
    check_delta_range(delta)
    return composed_epsilon(merge(segments), float(delta))


def renyi(segments: Sequence[Segment], order: float) -> float:
    """Rényi divergence at one ``order`` of all ``segments`` composed; infinite without noise."""
    return float(divergences(merge(segments), (order,))[0])


def worst_rdp_epsilon(groups: Sequence[Sequence[Sequence[Segment]]], delta: float) -> float:
    """Upper bound on the epsilon of a record that met one composition of each group.

    Which one it met is not known: order by order the worst of each group is added up, which bounds
    every choice (RDP composes by addition; Mironov, "Renyi Differential Privacy", 2017).
    """
    check_delta_range(delta)
    total: Array = np.zeros(len(_ORDERS))
    for candidates in groups:
        curves = [divergences(merge(segments), _ORDERS) for segments in candidates]
        total = total + np.max(curves, axis=0) if curves else total
    return best_epsilon(total, _ORDERS, delta)[0] if np.any(total > 0) else 0.0


def composed_epsilon(merged: tuple[Segment, ...], delta: float) -> float:
    """:func:`rdp_epsilon` of segments that are merged already."""
    if not merged:
        return 0.0
    value, best = best_epsilon(divergences(merged, WHOLE_ORDERS), WHOLE_ORDERS, delta)
    # The bound falls up to its best order and rises from there, so that only its neighbours can be
    # better; it is a bound at any order.
    near = tuple(order for order in _FRACTIONAL_ORDERS if abs(order - best) < 1)
    if not near:
        return value
    return min(value, best_epsilon(divergences(merged, near), near, delta)[0])


def divergences(merged: tuple[Segment, ...], orders: tuple[float, ...]) -> Array:
    """Rényi divergences [orders] of all `merged` segments composed."""
    total: Array = np.zeros(len(orders))
    for segment in merged:
        per_step = _per_step(segment.sample_rate, segment.noise_multiplier, orders)
        total = total + segment.steps * per_step
    return total


def best_epsilon(total: Array, orders: tuple[float, ...], delta: float) -> tuple[float, float]:
    """The least epsilon that divergences `total` [orders] prove, and the order that gives it."""
    from opacus.accountants.analysis.rdp import get_privacy_spent

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # The best order may be the last one; the bound holds all the same.
        warnings.simplefilter("ignore")
        value, order = get_privacy_spent(orders=list(orders), rdp=list(total), delta=delta)
    return max(float(value), 0.0), float(order)


@lru_cache(maxsize=4096)
def _per_step(rate: float, sigma: float, orders: tuple[float, ...]) -> Array:
    if sigma == 0:
        return np.full(len(orders), np.inf)
    from opacus.accountants.analysis.rdp import compute_rdp

    def at(order: float) -> float:
        try:
            value = float(compute_rdp(q=rate, noise_multiplier=sigma, steps=1, orders=float(order)))
        except (ArithmeticError, ValueError):
            # The series of some fractional orders loses all digits: do without that order.
            return math.inf
        return value if math.isfinite(value) and value >= 0 else math.inf

    whole = tuple(order for order in orders if isinstance(order, int))
    with np.errstate(all="ignore"):
        by_order = (
            dict(zip(whole, whole_orders_rdp(rate, sigma, whole), strict=True)) if whole else {}
        )
        return np.array([by_order[o] if isinstance(o, int) else at(o) for o in orders])


def whole_orders_rdp(rate: float, sigma: float, orders: tuple[int, ...]) -> Array:
    """RDP of one step at whole ``orders`` from 2 on (Mironov et al. 2019, section 3.3).

    At order a it is the logarithm of the sum over k of C(a, k) (1 - q)^(a - k) q^k
    exp((k^2 - k) / (2 s^2)), divided by a - 1.
    """
    order, sigma = np.array(orders, dtype=np.float64), np.float64(sigma)
    if rate == 1.0:
        return order / (2 * sigma**2)
    k = np.arange(max(orders) + 1, dtype=np.float64)
    terms = xlogy(k, rate) + (k**2 - k) / (2 * sigma**2)
    terms = terms + _log_binomials(orders) + xlog1py(order[:, None] - k, -rate)
    terms[k > order[:, None]] = -np.inf
    # Where the loss is tiny, rounding may give a number below 0; a result that is not finite
    # bounds nothing.
    divergence = np.maximum(logsumexp(terms, axis=1) / (order - 1), 0.0)
    return cast(Array, np.where(np.isfinite(divergence), divergence, np.inf))


@lru_cache(maxsize=4)
def _log_binomials(orders: tuple[int, ...]) -> Array:
    """log C(a, k), [orders, largest order + 1]; meaningless where k > a."""
    a = np.array(orders, dtype=np.float64)[:, None]
    k = np.arange(max(orders) + 1, dtype=np.float64)
    return cast(Array, gammaln(a + 1) - gammaln(k + 1) - gammaln(np.maximum(a - k, 0) + 1))
