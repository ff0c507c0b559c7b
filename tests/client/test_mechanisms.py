"""What may be accounted for, at the edges of every range, and how segments are merged."""

from __future__ import annotations

import math

import pytest

from client.accounting import Budget, Segment, calibrate, check_delta, merge, smallest_noise
from client.accounting.mechanisms import check_delta_range
from common.errors import UserError


@pytest.mark.parametrize(
    "values", [(0.0, 0.0, 0), (0.5, 1.0, 1), (1e300, 0.5, 10**6), (1.0, 1e-9, 2)]
)
def test_a_segment_takes_the_ends_of_its_ranges(values: tuple[float, float, int]) -> None:
    segment = Segment(*values)
    assert (segment.noise_multiplier, segment.sample_rate, segment.steps) == values


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ((-1e-9, 0.5, 1), "noise_multiplier"),
        ((math.inf, 0.5, 1), "noise_multiplier"),
        ((math.nan, 0.5, 1), "noise_multiplier"),
        ((1.0, -1e-9, 1), "sample_rate"),
        ((1.0, 1.0000001, 1), "sample_rate"),
        ((1.0, math.nan, 1), "sample_rate"),
        ((1.0, 0.5, -1), "steps"),
        ((1.0, 0.5, 1.5), "steps"),
    ],
)
def test_a_segment_refuses_what_is_beyond(values: tuple[float, float, int], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Segment(*values)


@pytest.mark.parametrize("delta", [-0.1, 0.0, 1.0, 1.5, math.nan])
def test_a_delta_is_between_0_and_1(delta: float) -> None:
    for use in (lambda: check_delta_range(delta), lambda: Budget(1.0, delta)):
        with pytest.raises(ValueError, match="delta"):
            use()


@pytest.mark.parametrize("delta", [1e-300, 0.5, 0.999])
def test_any_other_delta_is_allowed(delta: float) -> None:
    check_delta_range(delta)
    assert Budget(1e-9, delta).delta == delta


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.nan])
def test_a_budget_is_above_0(epsilon: float) -> None:
    with pytest.raises(ValueError, match="epsilon"):
        Budget(epsilon, 1e-5)


def test_delta_is_below_one_over_the_number_of_records() -> None:
    check_delta(0.5, 1)
    check_delta(1e-4, 9_999)
    for delta, records in ((0.5, 2), (1e-4, 10_000), (0.9, 100)):
        with pytest.raises(UserError, match="is not below"):
            check_delta(delta, records)


def test_merging_changes_nothing_but_the_form() -> None:
    one, other = Segment(1.0, 0.5, 1), Segment(1.5, 0.5, 1)
    assert merge([]) == merge([Segment(1.0, 0.5, 0), Segment(1.0, 0.0, 3)]) == ()
    assert merge([one]) == (one,)
    assert merge([other, one]) == (one, other)
    assert merge([one, one, other]) == (Segment(1.0, 0.5, 2), other)
    assert merge([Segment(1.0, 1e-6, 2)]) == (Segment(1.0, 1e-6, 2),)


def test_plain_gaussians_are_one() -> None:
    assert merge([Segment(2.0, 1.0, 1)]) == (Segment(2.0, 1.0, 1),)
    assert merge([Segment(3.0, 1.0, 9)]) == (Segment(1.0, 1.0, 1),)
    (both,) = merge([Segment(3.0, 1.0, 1), Segment(4.0, 1.0, 1)])
    assert both.noise_multiplier == pytest.approx(12 / 5)
    assert (both.sample_rate, both.steps) == (1.0, 1)
    # Without noise in one of them nothing is left to add up.
    assert merge([Segment(2.0, 1.0, 5), Segment(0.0, 1.0, 3)]) == (Segment(0.0, 1.0, 1),)
    assert merge([Segment(1.0, 1.0, 1), Segment(1.0, 0.5, 1)]) == (
        Segment(1.0, 0.5, 1),
        Segment(1.0, 1.0, 1),
    )


@pytest.mark.parametrize(
    ("target", "rate", "steps"),
    [
        (0.0, 0.1, 1),
        (-1.0, 0.1, 1),
        (math.nan, 0.1, 1),
        (1.0, 0.0, 1),
        (1.0, 1.1, 1),
        (1.0, 0.1, 0),
    ],
)
def test_there_is_nothing_to_calibrate_beyond_the_ranges(
    target: float, rate: float, steps: int
) -> None:
    with pytest.raises(ValueError, match=r"target epsilon|nothing to calibrate"):
        calibrate(target, 1e-5, rate, steps)


@pytest.mark.parametrize("least", [1e-3, 0.2, 0.25, 0.3, 1.0, 17.3, 262_144.0])
def test_the_smallest_noise_is_enough_and_hardly_more(least: float) -> None:
    asked: list[float] = []

    def enough(sigma: float) -> bool:
        asked.append(sigma)
        assert len(asked) < 40
        return sigma >= least

    sigma = smallest_noise(enough, 1.01)
    assert sigma is not None
    assert least <= sigma <= 1.01 * least
    # Never far beyond: some mechanisms are slow, or overflow, at extreme noise.
    assert min(0.25, least / 2) <= min(asked)
    assert max(asked) <= max(4 * least, 0.25)
    # A start, doublings or halvings, and a bisection of a factor of 2.
    assert len(asked) <= 11 + 4 + 7


def test_no_noise_up_to_a_million_is_enough() -> None:
    assert smallest_noise(lambda sigma: sigma > 300_000, 1.01) is None
