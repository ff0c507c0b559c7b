"""The f-DP audit against a linear program, simulation, and mechanisms whose privacy is known."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.stats import binom

from auditing.f_dp import judge, least_mass, most_noise, planned_guesses
from auditing.trade_off import TradeOff, from_profile, gaussian, sampled_gaussian
from client.accounting import Segment, calibrate, epsilon

DELTA = 1e-6
PROFILE = (np.array([0.0, 0.3, 1.0, 2.5]), np.array([0.5, 0.35, 0.12, 0.01]))


def reference(m: int, r: int, v: int, alpha: float) -> float:
    """The smallest total probability by linear programming, with the conditions of every count.

    Of `PROFILE`, whose trade-off function is a maximum of straight lines a * power + b.
    """
    lines = [(0.0, 0.0)]
    for eps, delta in zip(*PROFILE, strict=True):
        lines += [(math.exp(-eps), -delta * math.exp(-eps))]
        lines += [(math.exp(eps), 1 - delta - math.exp(eps))]
    counts = np.arange(r + 1)
    left, right = [], []
    for j in range(1, r + 1):
        hits = np.where(counts >= j, counts, 0) / m
        misses = np.where(counts >= j - 1, r - counts, 0) / m
        for a, b in lines:
            left.append(a * hits - misses)
            right.append(-b)
    solved = linprog(
        np.ones(r + 1), left, right, (counts >= v).astype(float)[None], [alpha], (0, None)
    )
    return float(solved.fun) if solved.status == 0 else math.inf


@pytest.mark.parametrize(("m", "r", "v"), [(12, 12, 9), (12, 5, 5), (30, 10, 7), (9, 9, 1)])
@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.3, 0.7])
def test_the_least_mass_is_that_of_a_linear_program(m: int, r: int, v: int, alpha: float) -> None:
    found, wanted = least_mass(m, r, v, alpha, from_profile(*PROFILE)), reference(m, r, v, alpha)
    if wanted > 1:
        assert found > 1
    else:
        assert found == pytest.approx(wanted, rel=1e-6)


def test_the_linear_program_is_not_always_the_same_answer() -> None:
    """The comparison above has refuted cases, loose ones and some in between."""
    cases = [reference(12, r, v, a) for r, v in [(12, 9), (5, 5)] for a in (0.001, 0.3, 0.7)]
    assert min(cases) < 0.1
    assert max(cases) > 1


def test_never_below_what_a_private_mechanism_can_reach() -> None:
    """Randomised response that with probability delta reveals every coin is (epsilon, delta)-DP."""
    m, eps, delta = 60, 1.0, 0.01
    trade_off = from_profile(np.array([eps]), np.array([delta]))
    q = 1 / (1 + math.exp(-eps))
    for v in range(1, m + 1):
        reached = delta + (1 - delta) * binom.sf(v - 1, m, q)
        assert least_mass(m, m, v, reached, trade_off) <= 1 + 1e-9


def scores(m: int, mu: float, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    coins = generator.random(m) < 0.5
    return mu * (coins - 0.5) + generator.standard_normal(m), coins


@pytest.mark.parametrize("mu", [0.25, 1.0, 1.53, 3.0])
@pytest.mark.parametrize("share", [0.05, 0.3, 1.0])
def test_the_bound_holds_for_gaussian_noise(mu: float, share: float) -> None:
    """At most 5 % of the bounds exceed the truth (in fact none: the theorem gives some away)."""
    generator = np.random.default_rng(0)
    m, broken = 400, 0
    for _ in range(400):
        values, coins = scores(m, mu, generator)
        surest = np.argsort(-np.abs(values))[: round(share * m)]
        right = int(((values > 0) == coins)[surest].sum())
        broken += least_mass(m, len(surest), right, 0.05, gaussian(mu)) > 1
    assert broken <= 20


def test_the_bound_holds_for_sampled_steps() -> None:
    """The likelihood ratios of many sampled steps, which is the best that an attack can have."""
    generator = np.random.default_rng(1)
    m, rate, steps, noise = 1000, 0.5, 4, 1.2
    claimed = epsilon([Segment(noise, rate, steps)], DELTA).value
    bounds = []
    for _ in range(60):
        coins = generator.random(m) < 0.5
        taken = (generator.random((m, steps)) < rate) & coins[:, None]
        seen = taken + noise * generator.standard_normal((m, steps))
        ratio = np.log1p(rate * (np.exp((seen - 0.5) / noise**2) - 1)).sum(axis=1)
        found = judge(ratio, coins, 100, rate, steps, DELTA, 0.95)
        bounds.append(found.epsilon_lower_bound)
    assert np.mean(np.array(bounds) > claimed) <= 0.05
    assert np.median(bounds) > 0.35 * claimed


def test_it_shows_more_than_epsilon_and_delta_alone() -> None:
    """Scores as good as they can be at epsilon = 8: at least 5, where the older bound has 3.4."""
    generator = np.random.default_rng(2)
    m, mu = 12288, 1 / calibrate(8.0, DELTA, 1.0, 1)
    guesses = planned_guesses(m, 8.0, DELTA, 0.025)
    bounds = [
        judge(*scores(m, mu, generator), guesses, 1.0, 1, DELTA, 0.975).epsilon_lower_bound
        for _ in range(20)
    ]
    assert np.median(bounds) >= 5
    assert max(bounds) <= 8


def test_nothing_and_everything() -> None:
    coins = np.arange(1000) % 2 == 0
    right = np.where(coins, 1.0, -1.0)
    none = judge(right, coins, 0, 1.0, 1, DELTA, 0.95)
    wrong = judge(-right, coins, 500, 1.0, 1, DELTA, 0.95)
    half = judge(np.ones(1000), coins, 1000, 1.0, 1, DELTA, 0.95)
    for one in (none, wrong, half):
        assert one.epsilon_lower_bound == 0.0
        assert one.noise_multiplier_upper_bound is None
    everything = judge(right, coins, 1000, 1.0, 1, DELTA, 0.95)
    assert everything.correct == 1000
    assert everything.epsilon_lower_bound > 12
    assert judge(right, coins, 3, 1.0, 1, DELTA, 0.95).epsilon_lower_bound == 0.0
    with pytest.raises(ValueError, match="11 right of 10"):
        least_mass(20, 10, 11, 0.05, gaussian(1.0))


def test_more_right_or_less_doubt_never_shows_less_noise_allowed() -> None:
    def bound(right: int, alpha: float) -> float:
        return most_noise(2000, 300, right, alpha, lambda s: gaussian(1 / s))

    by_count = [bound(right, 0.05) for right in range(150, 301, 5)]
    assert by_count[0] == math.inf
    assert all(a >= b for a, b in pairwise(by_count))
    by_level = [bound(290, alpha) for alpha in (0.001, 0.01, 0.05, 0.2)]
    assert by_level == sorted(by_level, reverse=True)
    assert by_level[0] > by_level[-1]


@pytest.mark.parametrize(("rate", "steps"), [(1.0, 1), (1.0, 9), (0.2, 5)])
def test_the_noise_that_is_found_is_where_the_refutation_ends(rate: float, steps: int) -> None:
    def family(noise: float) -> TradeOff:
        return sampled_gaussian(noise, rate, steps)

    found = most_noise(2000, 200, 180, 0.05, family)
    assert least_mass(2000, 200, 180, 0.05, family(found * 1.002)) > 1
    assert least_mass(2000, 200, 180, 0.05, family(found * 0.998)) <= 1


def test_a_plan_can_exceed_the_claim_and_depends_on_no_score() -> None:
    for m in (8000, 12288, 100_000):
        guesses = planned_guesses(m, 8.0, DELTA, 0.025)
        coins = np.arange(m) % 2 == 0
        found = judge(np.where(coins, 1.0, -1.0), coins, guesses, 1.0, 1, DELTA, 0.975)
        assert found.epsilon_lower_bound > 8
    # Where so few canaries show nothing at the claim, the plan is for a broken one.
    generator = np.random.default_rng(4)
    guesses = planned_guesses(384, 0.5, DELTA, 0.01)
    found = judge(*scores(384, 1.53, generator), guesses, 1.0, 1, DELTA, 0.99)
    assert found.epsilon_lower_bound > 1.5
    # Two canaries can prove next to nothing; the plan is still a plan.
    assert planned_guesses(2, 8.0, DELTA, 0.05) in (1, 2)
    assert planned_guesses(7, None, DELTA, 0.05) == 4
