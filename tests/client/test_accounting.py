from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution as pld
from opacus.accountants.analysis.prv import (
    PoissonSubsampledGaussianPRV,
    TruncatedPrivacyRandomVariable,
)
from opacus.accountants.analysis.rdp import compute_rdp
from scipy.optimize import brentq
from scipy.special import ndtr

from client.accounting import (
    Budget,
    BudgetExceeded,
    Segment,
    calibrate,
    check_delta,
    composition,
    epsilon,
    merge,
    prv,
    rdp,
    rdp_epsilon,
)
from client.refusal import public_reason
from common.errors import UserError
from common.refusals import Reason

DELTA = 1e-5


def pld_bound(segments: list[Segment], delta: float = DELTA) -> float:
    """Google's accountant, connect-the-dots: an upper bound within about 0.01 % of the truth."""
    total = None
    for segment in segments:
        part = pld.from_gaussian_mechanism(
            segment.noise_multiplier,
            value_discretization_interval=1e-4,
            sampling_prob=segment.sample_rate,
        ).self_compose(segment.steps)
        total = part if total is None else total.compose(part)
    assert total is not None
    return float(total.get_epsilon_for_delta(delta))


def pld_lower_bound(segments: list[Segment], delta: float = DELTA) -> float:
    """The same accountant rounding the other way: the truth cannot lie below this."""
    total = None
    for segment in segments:
        part = pld.from_gaussian_mechanism(
            segment.noise_multiplier,
            pessimistic_estimate=False,
            value_discretization_interval=1e-4,
            sampling_prob=segment.sample_rate,
            use_connect_dots=False,
        ).self_compose(segment.steps)
        total = part if total is None else total.compose(part)
    assert total is not None
    return float(total.get_epsilon_for_delta(delta))


def gaussian_epsilon(sigma: float, delta: float) -> float:
    """Balle and Wang, "Improving the Gaussian Mechanism", 2018, theorem 8, solved for epsilon."""

    def excess(eps: float) -> float:
        a, b = 1 / (2 * sigma) - eps * sigma, -1 / (2 * sigma) - eps * sigma
        return float(ndtr(a) - math.exp(eps) * ndtr(b) - delta)

    return float(brentq(excess, 0, 60))


@pytest.mark.parametrize(
    ("segments", "delta"),
    [
        ([Segment(1.0, 0.01, 1000)], 1e-5),
        ([Segment(0.6, 0.1, 30)], 1e-5),
        ([Segment(0.5, 0.001, 500)], 1e-6),
        ([Segment(4.0, 0.3, 24)], 1e-4),
        ([Segment(1.5, 0.05, 200), Segment(3.0, 0.2, 24), Segment(30.0, 1.0, 24)], 1e-5),
    ],
)
def test_within_one_percent_of_pld_and_never_below_it(
    segments: list[Segment], delta: float
) -> None:
    result = epsilon(segments, delta)
    truth = pld_bound(segments, delta)
    assert result.accountant == "prv"
    assert truth <= result.value <= 1.01 * truth
    assert result.rdp >= result.value


@pytest.mark.parametrize(
    ("target", "rate", "steps"),
    [(40.0, 0.3, 20), (8.0, 0.1, 24), (3.0, 0.1, 200), (1.0, 0.01, 1000), (0.5, 0.001, 10)],
)
def test_calibrated_noise_meets_the_target_within_one_percent(
    target: float, rate: float, steps: int
) -> None:
    sigma = calibrate(target, DELTA, rate, steps)
    assert epsilon([Segment(sigma, rate, steps)], DELTA).value <= target
    truth = pld_bound([Segment(sigma, rate, steps)])
    assert truth <= target <= 1.01 * truth


@pytest.mark.parametrize("sigma", [0.8, 3.0, 40.0])
def test_full_batch_is_the_gaussian_mechanism(sigma: float) -> None:
    exact = gaussian_epsilon(sigma, DELTA)
    assert exact <= epsilon([Segment(sigma, 1.0, 1)], DELTA).value <= 1.005 * exact
    # k releases are exactly one of sigma / sqrt(k).
    several = epsilon([Segment(sigma * 3, 1.0, 5), Segment(sigma * 3, 1.0, 4)], DELTA).value
    assert several == pytest.approx(epsilon([Segment(sigma, 1.0, 1)], DELTA).value, rel=1e-9)


def test_the_added_record_has_the_distribution_of_its_privacy_loss() -> None:
    rate, sigma = 0.2, 0.9
    x = np.random.default_rng(3).normal(0, sigma, 400_000)
    loss = -np.log(1 - rate + rate * np.exp((2 * x - 1) / (2 * sigma**2)))
    for t in (-1.5, -0.3, 0.0, 0.1, 0.2, -math.log(1 - rate) + 1e-9, 1.0):
        cdf = prv._AddedRecord(rate, sigma).cdf(t)
        assert float(cdf) == pytest.approx(float(np.mean(loss <= t)), abs=4e-3)


@pytest.mark.parametrize("sigma", [0.1, 0.7, 5.0, 300.0])
@pytest.mark.parametrize("rate", [1e-4, 0.03, 0.6, 1.0])
def test_whole_orders_are_those_of_opacus(rate: float, sigma: float) -> None:
    orders = (2, 3, 7, 64, 512)
    ours = rdp.whole_orders_rdp(rate, sigma, orders)
    theirs = compute_rdp(q=rate, noise_multiplier=sigma, steps=1, orders=list(orders))
    # At 1e-4 and 300 both are what is left of 1 - 1: 1e-13 or so.
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("loss", [PoissonSubsampledGaussianPRV, prv._AddedRecord])
@pytest.mark.parametrize(
    ("rate", "sigma", "width"), [(0.5, 1.1, 30.0), (0.6, 0.19, 2.0), (2e-4, 0.16, 250.0)]
)
def test_the_mean_of_a_privacy_loss_is_that_of_opacus(
    loss: Any, rate: float, sigma: float, width: float
) -> None:
    domain = prv._domain(width, 1e-4)
    variable = loss(rate, sigma)
    with np.errstate(all="ignore"):
        ours = prv._Truncated(variable, domain).mean()
        theirs = TruncatedPrivacyRandomVariable(variable, domain.t_min, domain.t_max).mean()
    # Opacus' own is exact to 1e-8 or so.
    assert ours == pytest.approx(theirs, abs=5e-8)


def test_nearly_exact_gaussians_are_still_composed_by_prv() -> None:
    assert epsilon([Segment(0.2, 1.0, 1)], DELTA).accountant == "prv"


def test_noise_beyond_all_numbers_crashes_nothing() -> None:
    with np.errstate(all="ignore"):
        assert rdp.whole_orders_rdp(0.5, 1e-200, (2, 3)).tolist() == [math.inf, math.inf]
        assert np.all(rdp.whole_orders_rdp(0.5, 1e200, (2, 3)) < 1e-9)


def test_rdp_replaces_prv_whose_mean_does_not_settle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prv, "_MEAN_TOLERANCE", -1.0)
    composition.bound.cache_clear()
    result = epsilon([Segment(1.0, 0.01, 1000)], DELTA)
    composition.bound.cache_clear()
    assert result.accountant == "rdp"
    assert "does not settle" in result.note


def test_order_and_splitting_do_not_matter() -> None:
    parts = [Segment(1.0, 0.01, 3), Segment(2.0, 0.02, 5), Segment(1.0, 0.01, 7)]
    assert merge(parts) == merge(parts[::-1]) == (Segment(1.0, 0.01, 10), Segment(2.0, 0.02, 5))
    assert merge([Segment(1.0, 0.0, 5), Segment(1.0, 0.5, 0)]) == ()


def test_nothing_spent_costs_nothing_and_no_noise_costs_everything() -> None:
    assert epsilon([], DELTA).value == 0.0
    assert rdp_epsilon([], DELTA) == 0.0
    for rate in (0.1, 1.0):
        assert epsilon([Segment(0.0, rate, 1), Segment(1.0, 1.0, 1)], DELTA).value == math.inf


def test_more_steps_never_cost_less_when_reserved_one_by_one() -> None:
    sigma = calibrate(2.0, DELTA, 0.05, 60)
    values = [epsilon([Segment(sigma, 0.05, k)], DELTA).value for k in (1, 2, 30, 57, 58, 59, 60)]
    assert values == sorted(values)
    assert values[-1] <= 2.0


def test_rdp_replaces_prv_where_it_overflows() -> None:
    # Opacus' PRV says 710.5 here, where exp() overflows; the exact value is above 1250 + 50.
    result = epsilon([Segment(0.02, 1.0, 1)], DELTA)
    assert result.value > 1 / (2 * 0.02**2) + 1 / 0.02
    assert result.accountant == "rdp"
    assert result.prv is None
    assert "RDP is used" in result.note
    assert result.value == result.rdp
    assert math.isfinite(result.value)


def test_tiny_delta() -> None:
    segments = [Segment(1.0, 0.01, 1000)]
    truth = pld_bound(segments, 1e-10)
    assert truth <= epsilon(segments, 1e-10).value <= 1.01 * truth
    # Below that PRV's sums are rounding errors, so only RDP is trusted.
    assert epsilon(segments, 1e-11).accountant == "rdp"


def test_rdp_replaces_prv_that_contradicts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    segments = (Segment(1.0, 0.013, 77),)
    bound = rdp_epsilon(segments, DELTA)
    monkeypatch.setattr(prv, "epsilon_bounds", lambda *_: (bound + 0.1, bound + 0.2))
    result = epsilon(segments, DELTA)
    assert (result.accountant, result.prv, result.value) == ("rdp", None, bound)
    assert "above RDP's bound" in result.note


def test_second_run_is_planned_on_what_the_first_left() -> None:
    first = Segment(calibrate(4.0, DELTA, 0.1, 20), 0.1, 20)
    fresh = calibrate(8.0, DELTA, 0.1, 20)
    sigma = calibrate(8.0, DELTA, 0.1, 20, [first])
    both = [first, Segment(sigma, 0.1, 20)]
    assert sigma > fresh
    assert pld_bound(both) <= epsilon(both, DELTA).value <= 8.0 <= 1.01 * pld_bound(both)


def test_little_is_left_and_is_used() -> None:
    first = Segment(calibrate(7.84, DELTA, 0.1, 20), 0.1, 20)
    both = [first, Segment(calibrate(8.0, DELTA, 0.1, 20, [first]), 0.1, 20)]
    assert pld_bound(both) <= epsilon(both, DELTA).value <= 8.0 <= 1.01 * pld_bound(both)


def test_refused_when_nothing_is_left() -> None:
    spent = [Segment(0.9, 0.1, 50)]
    already = epsilon(spent, DELTA).value
    with pytest.raises(BudgetExceeded) as caught:
        calibrate(already, DELTA, 0.1, 1, spent, dataset="notes")
    assert caught.value.detail.startswith("data set 'notes': nothing is left of the budget")
    # For the partner's own log; what a coordinator reads has no figure.
    assert public_reason(caught.value) == Reason.BUDGET.sentence()


def test_refused_when_what_is_left_is_too_little_for_any_noise() -> None:
    spent = [Segment(0.9, 0.1, 50)]
    with pytest.raises(BudgetExceeded) as caught:
        calibrate(epsilon(spent, DELTA).value * 1.0001, DELTA, 0.1, 1, spent)
    assert "cannot be met" in caught.value.detail
    assert public_reason(caught.value) == Reason.TOO_MUCH_NOISE.sentence("privacy.epsilon")


def test_delta_must_be_below_one_over_n_and_the_message_keeps_n_secret() -> None:
    check_delta(1e-4, 9_999)
    with pytest.raises(UserError, match="delta") as caught:
        check_delta(1e-4, 12_345)
    assert "12" not in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Segment(-1.0, 0.1, 1),
        lambda: Segment(math.nan, 0.1, 1),
        lambda: Segment(1.0, 1.1, 1),
        lambda: Segment(1.0, 0.1, -1),
        lambda: Budget(0.0, 1e-5),
        lambda: Budget(1.0, 0.0),
        lambda: epsilon([], 1.0),
        lambda: calibrate(1.0, DELTA, 0.0, 1),
    ],
)
def test_values_out_of_range_are_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=r"not|nothing"):
        make()


ROUND = Segment(1.2, 0.1, 5)
ROUNDS = 12


def _claim_of_accountant_reset_every_round() -> float:
    return max(epsilon([ROUND], DELTA).value for _ in range(ROUNDS))


def _claim_of_one_step_counted_a_round() -> float:
    return epsilon([Segment(ROUND.noise_multiplier, ROUND.sample_rate, ROUNDS)], DELTA).value


def _claim_of_sampling_rate_divided_by_steps() -> float:
    thin = Segment(ROUND.noise_multiplier, ROUND.sample_rate / ROUND.steps, ROUND.steps * ROUNDS)
    return epsilon([thin], DELTA).value


@pytest.mark.parametrize(
    "planted",
    [
        _claim_of_accountant_reset_every_round,
        _claim_of_one_step_counted_a_round,
        _claim_of_sampling_rate_divided_by_steps,
    ],
)
def test_planted_accounting_faults_fall_below_the_proven_lower_bound(planted: object) -> None:
    """The check that an honest account passes is one that each fault fails."""
    spent = [ROUND] * ROUNDS
    floor = pld_lower_bound([Segment(ROUND.noise_multiplier, ROUND.sample_rate, 5 * ROUNDS)])
    assert epsilon(spent, DELTA).value >= floor
    assert callable(planted)
    assert planted() < floor
