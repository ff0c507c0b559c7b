"""Figures of the accountants that stay what they are from one version to the next.

A partner compares what its ledger says today with what it said when a run was reserved, and a
coordinator plans noise with the same functions.  So a change of any of these is a decision, never
an accident: that the figures are right is for `test_accounting.py`, which compares them with other
accountants and closed forms.
"""

from __future__ import annotations

import numpy as np
import pytest

from client import lifetime
from client.accounting import (
    Budget,
    Segment,
    calibrate,
    composition,
    epsilon,
    least_epsilon,
    privacy_profile,
    rdp,
    rdp_epsilon,
    renyi,
    worst_rdp_epsilon,
)

TIGHT = 1e-7


def near(value: float) -> object:
    return pytest.approx(value, rel=TIGHT, abs=1e-12)


@pytest.mark.parametrize(
    ("segments", "delta", "accountant", "value", "by_rdp", "least"),
    [
        (
            [(1.0, 0.01, 1000)],
            1e-5,
            "prv",
            1.8325847644513615,
            2.1077530754515768,
            1.823889745011793,
        ),
        ([(0.45, 0.1, 12)], 1e-6, "prv", 19.131552954901558, 21.89531289887121, 19.041595600301463),
        ([(8.0, 1.0, 9)], 1e-5, "prv", 1.4509698552397305, 1.5774676062087545, 1.4444780244588293),
        (
            [(1.5, 0.05, 200), (3.0, 0.2, 24), (30.0, 1.0, 24)],
            *(1e-5, "prv", 2.8596678160859277, 3.1423620465309745, 2.8467414715665402),
        ),
        (
            [(2.0, 0.02, 300)],
            1e-10,
            "prv",
            1.2017235799020836,
            1.2691622680636316,
            1.196573500572323,
        ),
        # Below the smallest delta that PRV's arithmetic allows.
        ([(2.0, 0.02, 300)], 1e-11, "rdp", 1.3517023585612489, 1.3517023585612489, 0.0),
        ([(50.0, 0.001, 10)], 1e-5, "prv", 9.998381767729482e-05, 0.00836810472451267, 0.0),
        ([(5.0, 0.3, 5000)], 1e-6, "prv", 28.92008910882724, 30.48274909096367, 28.796394964445085),
        ([(0.1, 1.0, 1)], 1e-5, "prv", 92.01189847224855, 96.116308425056, 91.622851671827),
    ],
)
def test_epsilon_and_its_bounds(
    segments: list[tuple[float, float, int]],
    delta: float,
    accountant: str,
    value: float,
    by_rdp: float,
    least: float,
) -> None:
    composed = [Segment(*one) for one in segments]
    composition.bound.cache_clear()
    bound = epsilon(composed, delta)
    assert (bound.accountant, bound.note == "") == (accountant, accountant == "prv")
    assert (bound.value, bound.rdp) == (near(value), near(by_rdp))
    assert bound.prv == (near(value) if accountant == "prv" else None)
    assert least_epsilon(composed, delta) == near(least)


@pytest.mark.parametrize(
    ("target", "delta", "rate", "steps", "spent", "sigma"),
    [
        (8.0, 1e-5, 0.1, 24, [], 0.7026215555656397),
        (0.5, 1e-6, 0.01, 100, [], 1.2591921325706825),
        (2.0, 1e-5, 1.0, 9, [], 5.9961503146079105),
        (8.0, 1e-5, 0.1, 24, [Segment(1.2, 0.1, 24)], 0.7172253273707678),
        (60.0, 1e-5, 0.5, 3, [], 0.21539709735402573),
        (0.02, 1e-5, 0.3, 50, [], 281.6743869768785),
    ],
)
def test_the_noise_that_a_budget_needs(
    target: float, delta: float, rate: float, steps: int, spent: list[Segment], sigma: float
) -> None:
    assert calibrate(target, delta, rate, steps, spent) == near(sigma)


def test_profiles() -> None:
    epsilons = np.array([0.0, 0.5, 1.0, 2.0])
    sampled = privacy_profile([Segment(1.0, 0.1, 20)], epsilons)
    wanted = [0.20501280540423236, 0.0759684257988561, 0.02316750496426511, 0.0014817650325614406]
    assert sampled.tolist() == near_all(wanted)
    plain = privacy_profile([Segment(3.0, 1.0, 2)], epsilons[[0, 2]])
    assert plain.tolist() == near_all([0.18751485821091132, 0.004708815156666316])
    assert privacy_profile([], epsilons).tolist() == [0.0] * 4
    assert privacy_profile([Segment(0.0, 0.1, 1)], epsilons).tolist() == [1.0] * 4


def near_all(values: list[float]) -> object:
    return pytest.approx(values, rel=TIGHT)


def test_renyi_divergences_and_what_follows_from_them() -> None:
    steps = [Segment(1.3, 0.2, 7)]
    wanted = [0.15655620990897395, 0.22241314649455535, 14.743557444212568, 1049.0669171040693]
    assert [renyi(steps, order) for order in (1.5, 2, 13, 512)] == near_all(wanted)
    assert rdp_epsilon([Segment(1.0, 0.01, 1000)], 1e-5) == near(2.1077530754515768)
    assert rdp_epsilon([Segment(0.3, 0.5, 2)], 1e-3) == near(23.75056497126718)
    assert rdp_epsilon([Segment(20.0, 0.001, 5)], 1e-8) == near(0.021888400502604613)
    candidates = [[Segment(1.0, 0.1, 5)], [Segment(2.0, 0.3, 9)]]
    worst = worst_rdp_epsilon([candidates, [[Segment(4.0, 1.0, 2)]]], 1e-5)
    assert worst == near(3.2592799282519502)
    assert worst_rdp_epsilon([], 1e-5) == worst_rdp_epsilon([[[]]], 1e-5) == 0.0
    assert rdp.divergences((), (2, 3)).tolist() == [0.0, 0.0]


def test_the_lifetime_filter() -> None:
    limit, steps = Budget(8.0, 1e-5), [Segment(1.5, 0.05, 200)]
    assert lifetime.filter_order(limit) == 4
    assert lifetime.counted(steps, limit, planned=False) == near(3.915341067557295)
    assert lifetime.counted(steps, limit, planned=True) == near(2.461200469312561)
    assert lifetime.counted([], limit, planned=False) == 0.0
    spent = [Segment(3.0, 0.1, 24)]
    noise = lifetime.noise_within(limit, 0.1, 24, spent, planned=False)
    assert noise == near(0.8494779692531967)
    assert lifetime.noise_within(limit, 0.1, 24, [], planned=True) == near(0.7201866794219323)
    wide = lifetime.noise_within(Budget(300.0, 1e-5), 0.1, 2, [], planned=False)
    assert wide == near(0.08193507572029778)
