"""Audit statistics against a slow reference, simulation, and mechanisms whose privacy is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from auditing.bounds import (
    clopper_pearson,
    one_run_bound,
    p_value,
    shared_confidence,
)


def reference(m: int, r: int, v: int, epsilon: float, delta: float) -> float:
    """Appendix D of Steinke, Nasr and Jagielski (2023), written as there."""
    q = 1 / (1 + math.exp(-epsilon))
    beta = binom.sf(v - 1, r, q)
    alpha, total = 0.0, 0.0
    for i in range(1, v + 1):
        total += binom.pmf(v - i, r, q)
        if total > i * alpha:
            alpha = total / i
    return min(float(beta + alpha * delta * 2 * m), 1.0)


@pytest.mark.parametrize(
    ("m", "r", "v"), [(10, 10, 10), (100, 40, 33), (1000, 1000, 620), (50, 5, 0)]
)
@pytest.mark.parametrize("epsilon", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("delta", [0.0, 1e-5, 1e-2])
def test_p_value_equals_the_reference(m: int, r: int, v: int, epsilon: float, delta: float) -> None:
    assert p_value(m, r, v, epsilon, delta) == pytest.approx(
        reference(m, r, v, epsilon, delta), rel=1e-9, abs=1e-15
    )


def test_never_below_what_a_private_mechanism_can_reach() -> None:
    """Randomised response that with probability delta reveals every coin is (epsilon, delta)-DP."""
    m, epsilon, delta = 60, 1.0, 0.01
    q = 1 / (1 + math.exp(-epsilon))
    for v in range(1, m + 1):
        reached = delta + (1 - delta) * binom.sf(v - 1, m, q)
        assert p_value(m, m, v, epsilon, delta) >= reached * (1 - 1e-12)


def test_the_bound_holds_for_randomised_response() -> None:
    generator = np.random.default_rng(0)
    epsilon, m = 2.0, 400
    q = 1 / (1 + math.exp(-epsilon))
    bounds = [one_run_bound(m, m, int(generator.binomial(m, q)), 0.0, 0.95) for _ in range(400)]
    assert 0.91 <= np.mean(np.array(bounds) <= epsilon) <= 0.99
    assert np.median(bounds) > 1.6  # and it is not empty


def test_all_right_needs_many_canaries_for_a_large_bound() -> None:
    # q^m = 0.05, so epsilon = logit(0.05^(1/m))
    for m in (10, 1000):
        q = 0.05 ** (1 / m)
        assert one_run_bound(m, m, m, 0.0, 0.95) == pytest.approx(math.log(q / (1 - q)), rel=1e-6)
    assert one_run_bound(100, 100, 50, 1e-5, 0.95) == 0.0


def test_impossible_counts_are_an_error() -> None:
    with pytest.raises(ValueError, match="11 right of 10"):
        p_value(20, 10, 11, 1.0, 0.0)


@pytest.mark.parametrize(("k", "n"), [(0, 20), (3, 20), (20, 20), (190, 1000)])
def test_clopper_pearson_against_scipy(k: int, n: int) -> None:
    low, high = clopper_pearson(k, n, 0.975)
    wanted = binomtest(k, n).proportion_ci(0.95, "exact")
    assert (low, high) == pytest.approx((wanted.low, wanted.high), abs=1e-9)


def test_bounds_that_hold_together_share_the_error() -> None:
    assert shared_confidence(0.95, 1) == pytest.approx(0.95)
    assert shared_confidence(0.95, 2) == pytest.approx(0.975)
    # Independent bounds would all hold with a little more, disjoint errors with exactly 0.95.
    assert 1 - 3 * (1 - shared_confidence(0.95, 3)) == pytest.approx(0.95)
