"""Rounded Gaussian noise against its definition, in as many digits as it takes."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import ndtri

from common import gaussian, grid
from common.gaussian import rounded_gaussian
from common.grid import ROUNDING, GaussianMechanism, grid_step, release_counts
from common.randomness import Stream, SystemStream
from simulation.seeded_streams import SeededStream

DRAWS = 10_000_000
SCALE = 2.0**20
# A true hypothesis is rejected once in a hundred thousand runs.
LEVEL = 1e-5


def ks(draws: np.ndarray, scale: float) -> float:
    """p-value of the Kolmogorov-Smirnov test against N(0, scale^2)."""
    return float(stats.kstest(draws / scale, "norm", method="asymp").pvalue)


def tails(draws: np.ndarray, scale: float) -> float:
    """The smallest p-value of the numbers of draws beyond 3, 4 and 5 standard deviations."""
    found = []
    for beyond in (3.0, 4.0, 5.0):
        for side in (draws, -draws):
            count = int((side > beyond * scale).sum())
            chance = float(stats.norm.sf((math.floor(beyond * scale) + 0.5) / scale))
            found.append(stats.binomtest(count, len(draws), chance).pvalue)
    return min(found)


def test_ten_million_draws() -> None:
    draws = rounded_gaussian(SystemStream(), SCALE, DRAWS)
    assert np.array_equal(draws, np.rint(draws))
    assert ks(draws, SCALE) > LEVEL
    assert tails(draws, SCALE) > LEVEL
    # The tests see what they are there for: a deviation that is off by half a percent, and no tail.
    assert ks(1.005 * draws, SCALE) < LEVEL
    assert tails(np.clip(draws, -3.5 * SCALE, 3.5 * SCALE), SCALE) < LEVEL


def test_streams_one_bit_of_the_key_apart_are_independent() -> None:
    key = bytearray(b"k" * 32)
    first = rounded_gaussian(Stream(bytes(key)), SCALE, DRAWS // 10)
    key[17] ^= 1
    second = rounded_gaussian(Stream(bytes(key)), SCALE, DRAWS // 10)
    for lag in range(4):
        shifted = np.roll(second, lag)
        assert abs(float(np.corrcoef(first, shifted)[0, 1])) * math.sqrt(len(first)) < 5
        assert ks((first + shifted) / math.sqrt(2), SCALE) > LEVEL
        assert ks((first - shifted) / math.sqrt(2), SCALE) > LEVEL


@pytest.mark.parametrize("scale", [0.2, 1.0, 3.7])
def test_coarse_noise_has_the_probabilities_of_the_rounded_gaussian(scale: float) -> None:
    draws = rounded_gaussian(SeededStream(1), scale, 400_000)
    values = np.arange(-40, 41)
    chances = stats.norm.cdf((values + 0.5) / scale) - stats.norm.cdf((values - 0.5) / scale)
    often = chances * len(draws) > 10
    found = np.array([(draws == value).sum() for value in values[often]])
    wanted = chances[often] * len(draws)
    rest = len(draws) - found.sum(), len(draws) - wanted.sum()
    statistic = ((found - wanted) ** 2 / wanted).sum() + (rest[0] - rest[1]) ** 2 / (rest[1] + 10)
    assert stats.chi2.sf(statistic, int(often.sum())) > LEVEL


def test_each_draw_is_the_inverse_distribution_function_to_the_last_unit() -> None:
    """Word by word against 60 digits, at a scale at which float64 alone would often be wrong."""
    scale = 2.0**44
    key = b"a" * 32
    words = Stream(key).words(300)
    # Both ends: the middle of the distribution and its far tail.
    words = np.concatenate([words, np.array([1, 2, 5, 2**64 - 1, 2**64 - 2, 2**40], np.uint64)])
    drawn = gaussian._block(SeededStream(0), scale, words)
    sent_on = 0
    with mpmath.workdps(60):
        for word, found in zip(words, drawn, strict=True):
            known, sign = int(word) >> 1, -1 if int(word) & 1 else 1
            # The two ends of the interval in which U lies.
            ends = [
                mpmath.sqrt(2) * mpmath.erfinv(1 - mpmath.mpf(k) / 2**63) * mpmath.mpf(scale)
                for k in (known + 1, max(known, mpmath.mpf(1) / 2**40))
            ]
            low, high = (int(mpmath.nint(end)) for end in ends)
            sent_on += low != high
            assert low <= sign * int(found) <= high
    # Some intervals held a boundary, and were decided by further bits.
    assert sent_on > 0


def test_undecided_draws_take_further_bits_and_agree_with_the_exact_value() -> None:
    scale = 1000.0
    words = Stream(b"b" * 32).words(100)
    plain = gaussian._block(SeededStream(0), scale, words)
    for word, found in zip(words, plain, strict=True):
        assert gaussian._decided(SeededStream(5), scale, int(word) >> 1) == abs(found)


@pytest.mark.parametrize(
    ("scale", "whole"),
    [(8388607.3, 8000001), (3000000.7, 1234567), (1234567.89, 999999), (100003.7, 77777)],
)
def test_boundaries_are_those_of_real_numbers(scale: float, whole: int) -> None:
    """U between the real boundary above `whole` and that boundary in float64."""
    with mpmath.workprec(400):
        real = (2 * mpmath.mpf(whole) + 1) / 2 / mpmath.mpf(scale)
        rounded = mpmath.mpf((whole + 0.5) / scale)
        middle = mpmath.erfc((real + rounded) / 2 / mpmath.sqrt(2)) / 2
        bits = int(mpmath.floor(middle * mpmath.mpf(2) ** 192))
    rest = [(bits >> shift) & (2**64 - 1) for shift in (64, 0)]

    class Rest(Stream):
        def __init__(self) -> None:
            self.left = rest

        def words(self, count: int) -> np.ndarray:
            return np.array([self.left.pop(0) for _ in range(count)], dtype=np.uint64)

    assert gaussian._decided(Rest(), scale, bits >> 128) == whole + (rounded > real)


def test_the_far_tail_is_decided_exactly_at_any_scale() -> None:
    """The first bits of U are all 0: its interval reaches to infinity."""

    class Tail(Stream):
        def __init__(self) -> None:
            self.left = [0, 1]

        def words(self, count: int) -> np.ndarray:
            return np.array([self.left.pop(0) for _ in range(count)], dtype=np.uint64)

    drawn = gaussian._block(Tail(), 0.1, np.array([0], dtype=np.uint64))
    with mpmath.workprec(400):
        exact = mpmath.sqrt(2) * mpmath.erfinv(1 - mpmath.mpf(3) / mpmath.mpf(2) ** 192) / 10
    assert drawn.tolist() == [float(mpmath.nint(exact))] == [2.0]


def test_the_inverse_distribution_function_is_as_exact_as_the_argument_needs() -> None:
    random = np.random.default_rng(0)
    # Cephes changes its formula at exp(-2) and where sqrt(-2 log u) is 8.
    borders = np.array([math.exp(-2), 1 - math.exp(-2), math.exp(-32)])
    near = (borders[:, None] * (1 + np.linspace(-1e-9, 1e-9, 21))).ravel()
    points = np.concatenate([random.random(1000) / 2, 2.0 ** -random.uniform(1, 64, 1000), near])
    points = points[(points > 0) & (points < 0.5)]
    with mpmath.workdps(50):
        for u, found in zip(points, ndtri(points), strict=True):
            exact = -mpmath.sqrt(2) * mpmath.erfinv(1 - 2 * mpmath.mpf(float(u)))
            assert abs(found - exact) <= mpmath.mpf(2) ** -48 * (1 + abs(exact))


@pytest.mark.parametrize("scale", [-1.0, math.nan, math.inf, 2.0**47])
def test_scales_outside_the_proof_are_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="scale"):
        rounded_gaussian(SeededStream(0), scale, 1)


@pytest.mark.parametrize(("sensitivity", "size"), [(0.1, 13_000), (17.0, 1), (1e-6, 10**8)])
def test_rounding_is_within_what_the_noise_allows_for(sensitivity: float, size: int) -> None:
    step = grid_step(sensitivity, size)
    assert math.log2(step) == int(math.log2(step))
    room = ROUNDING / 2 * sensitivity
    assert step * math.sqrt(size) <= room < 2.0 * step * math.sqrt(size)


def test_what_is_released_lies_on_the_grid_and_moves_by_no_more_than_accounted() -> None:
    random, clip, size = torch.Generator().manual_seed(0), 0.3, 5000
    worst = 0.0
    for _ in range(50):
        base = torch.randn(size, generator=random)
        extra = torch.randn(size, generator=random)
        extra *= clip / extra.norm()
        ends = [
            GaussianMechanism(clip, 0.0, size, SeededStream(1)).release(value)
            for value in (base.double(), base.double() + extra.double())
        ]
        step = grid_step(clip, size)
        assert all(torch.equal(end / step, (end / step).round()) for end in ends)
        worst = max(worst, float((ends[1] - ends[0]).norm()))
    assert worst <= clip * (1 + ROUNDING)


def test_the_noise_is_independent_of_the_sum_to_the_last_bit() -> None:
    """Noise in floating point has gaps whose places depend on the sum; this has none.

    With one stream, two sums on the grid differ after the noise by what they differed before.
    """
    size, step = 1000, grid_step(1.0, 1000)
    sums = [torch.zeros(size, dtype=torch.float64), torch.full((size,), 12345 * step)]
    noisy = [GaussianMechanism(1.0, 0.7, size, SeededStream(4)).release(s) for s in sums]
    assert torch.equal(noisy[1] - noisy[0], sums[1].double())


def test_a_number_that_is_not_finite_counts_as_nothing() -> None:
    values = torch.tensor([math.nan, math.inf, -math.inf, 1.0])
    released = GaussianMechanism(1.0, 0.0, 4, SeededStream(0)).release(values)
    assert released.tolist() == [0.0, 0.0, 0.0, 1.0]


def test_counts_have_noise_of_the_stated_size() -> None:
    noisy = release_counts(np.full(50_000, 7.0), 2.0, 1.5, SeededStream(2))
    assert noisy.mean() == pytest.approx(7.0, abs=0.06)
    assert noisy.std() == pytest.approx(3.0 * (1 + ROUNDING), rel=0.02)


def test_a_sensitivity_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="sensitivity"):
        grid_step(0.0, 10)
    assert grid.ROUNDING == ROUNDING
