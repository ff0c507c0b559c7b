"""Trade-off functions against their definition, and the profile against Google's accountant."""

from __future__ import annotations

import math

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution as pld

from auditing.trade_off import from_profile, gaussian, sampled_gaussian
from client.accounting import Segment, epsilon, least_epsilon, privacy_profile

POWERS = np.linspace(0.0, 1.0, 51)


def google(noise: float, rate: float, steps: int) -> pld.PrivacyLossDistribution:
    return pld.from_gaussian_mechanism(
        noise, value_discretization_interval=2e-4, sampling_prob=rate
    ).self_compose(steps)


@pytest.mark.parametrize(
    ("noise", "rate", "steps"), [(0.7, 1.0, 1), (1.0, 0.1, 40), (2.0, 0.01, 1000)]
)
def test_the_profile_is_close_to_googles_and_never_below(
    noise: float, rate: float, steps: int
) -> None:
    epsilons = np.array([0.0, 0.1, 0.5, 1.0, 2.0])
    found = privacy_profile([Segment(noise, rate, steps)], epsilons)
    wanted = np.array([google(noise, rate, steps).get_delta_for_epsilon(e) for e in epsilons])
    # Google's is an upper bound too, within about 0.01 %.
    assert (found >= wanted * (1 - 1e-3)).all()
    assert found == pytest.approx(wanted, rel=0.03, abs=3e-6)


@pytest.mark.parametrize(
    ("noise", "rate", "steps"), [(0.654, 1.0, 1), (1.0, 0.1, 40), (2.0, 0.01, 1000)]
)
def test_the_least_epsilon_is_close_below_the_reported_one(
    noise: float, rate: float, steps: int
) -> None:
    segments = [Segment(noise, rate, steps)]
    low, high = least_epsilon(segments, 1e-6), epsilon(segments, 1e-6).value
    truth = google(noise, rate, steps).get_epsilon_for_delta(1e-6)
    assert low <= truth * (1 + 1e-4) <= high * (1 + 2e-4)
    assert low > 0.985 * high


def test_ends_of_the_profile() -> None:
    epsilons = np.array([0.0, 1.0])
    assert privacy_profile([], epsilons).tolist() == [0.0, 0.0]
    assert privacy_profile([Segment(0.0, 1.0, 1)], epsilons).tolist() == [1.0, 1.0]
    assert least_epsilon([], 1e-6) == 0.0
    assert least_epsilon([Segment(0.0, 1.0, 1)], 1e-6) == math.inf
    assert least_epsilon([Segment(1e-3, 1.0, 1)], 1e-6) == 0.0  # beyond PRV: nothing is claimed


def test_the_bound_by_the_profile_is_close_below_the_exact_function() -> None:
    """At rate 1 the trade-off function is known exactly."""
    epsilons = np.concatenate([np.linspace(0.0, 3.0, 61), np.linspace(3.1, 12.0, 90)])
    for mu in (0.3, 1.0, 2.0):
        deltas = privacy_profile([Segment(1 / mu, 1.0, 1)], epsilons)
        exact, bound = gaussian(mu), from_profile(epsilons, deltas)
        gap = np.array([exact(p) - bound(p) for p in POWERS[1:-1]])
        assert (gap >= -1e-9).all()
        assert gap.max() < 0.005


def test_sampling_and_noise_only_add_privacy() -> None:
    """The same true-positive rate costs at least as many false positives, in every trade-off."""
    for less, more in [((1.0, 1.0, 3), (1.0, 0.3, 3)), ((0.8, 0.3, 3), (1.2, 0.3, 3))]:
        a, b = sampled_gaussian(*less), sampled_gaussian(*more)
        assert all(a(p) <= b(p) + 1e-6 for p in POWERS[:-1])


def test_hardly_any_noise_falls_back_on_no_sampling() -> None:
    found, whole = sampled_gaussian(1e-3, 0.5, 4), gaussian(2.0 / 1e-3)
    assert [found(p) for p in POWERS] == [whole(p) for p in POWERS]
