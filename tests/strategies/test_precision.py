"""Distances of rows that nearly coincide, against float64 differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from strategies import distances, linalg
from strategies.robust.bulyan import Bulyan, iterated_krum
from strategies.robust.caf import CAF
from strategies.robust.centred_clipping import CentredClipping
from strategies.rows import Rows
from tests.strategies.oracle import context, random_rows, relative_error, run, uniform


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def direct(x: Tensor, y: Tensor | None = None) -> Tensor:
    """Squared distances [n, m] from float64 differences."""
    x = x.double()
    y = x if y is None else y.double()
    return torch.stack([(x - row).square().sum(1) for row in y], dim=1)


def largest_error(actual: Tensor, exact: Tensor) -> float:
    off = exact > 0
    assert torch.equal(actual[~off], exact[~off])
    return float(((actual - exact)[off] / exact[off]).abs().max())


def averaging(n: int, seed: int) -> Tensor:
    """Mixing rows that sum to 1, as those of NNM and bucketing do."""
    return torch.softmax(torch.randn(n, n, generator=generator(seed)).double(), 1)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("apart", [1e-6, 1e-4])
def test_distances_to_a_centre_near_the_rows(apart, mixed):
    centre = torch.randn(100_000, generator=generator(0))
    x = centre + apart * torch.randn(7, 100_000, generator=generator(1))
    rows = Rows(x).mix(averaging(7, 2)) if mixed else Rows(x)
    exact = rows.mixing @ x.double() if rows.mixing is not None else x.double()
    expected = direct(exact, centre[None])[:, 0].sqrt()
    rule = CentredClipping(2, iterations=1)
    result = rule.apply(rows, uniform(7), {"centre": centre}, context())
    assert result.scores is not None
    assert largest_error(result.scores, expected) < 1e-5
    factors = (expected.median() / expected).clamp_max(1.0)
    move = (factors[:, None] * (exact - centre.double())).mean(0)
    # Float32 rounds the sum of the rows at their own length, which is part of so small a move.
    moved = result.update.double() - centre.double()
    assert relative_error(moved, move) < 3e-7 / apart
    torch.testing.assert_close(result.shares, factors / 7, rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", ["clipped", "offset"])
def test_distances_of_mixed_rows_to_a_centre(kind):
    x = random_rows(6, 5_000, seed=3) + (1e4 if kind == "offset" else 0.0)
    mixing = torch.diag(torch.rand(6, generator=generator(4)).double())
    if kind == "offset":
        mixing = averaging(6, 5) @ mixing
    centre = x[0] * 0.5
    found = Rows(x).mix(mixing).squared_distances_from(centre)
    assert largest_error(found, direct(mixing @ x.double(), centre[None])[:, 0]) < 1e-5


@pytest.mark.parametrize("d", [1_000, 300_000])
@pytest.mark.parametrize("stage", ["none", "averaging", "clipping", "both"])
def test_distances_at_an_offset(d, stage):
    # float32 has a step of 1e-3 at 1e4: what counts is the distance of the rows as they are.
    x = 1e4 + 1e-3 * torch.randn(9, d, generator=generator(d))
    x[7] += 0.5
    mixing = torch.eye(9).double()
    if stage in ("clipping", "both"):
        mixing = torch.diag(1 - 1e-7 * torch.rand(9, generator=generator(1)).double()) @ mixing
    if stage in ("averaging", "both"):
        mixing = averaging(9, 2) @ mixing
    rows = Rows(x) if stage == "none" else Rows(x).mix(mixing)
    # Differences of the mixed rows without the offset in them: exact where the sums are 1.
    sums = mixing.sum(1)
    centred = mixing @ (x.double() - x[0].double())
    exact = direct(centred + (sums - 1)[:, None] * x[0].double())
    assert largest_error(rows.distances, exact) < 1e-5
    assert torch.equal(rows.distances, rows.distances.T)


def test_distances_at_an_offset_beside_a_huge_row():
    # The row that is subtracted must not be one that swallows all others.
    for huge in (0, 4, 8):
        x = 1e4 + 1e-3 * torch.randn(9, 2_000, generator=generator(huge))
        x[huge] = 1e10
        assert largest_error(Rows(x).distances, direct(x)) < 1e-6


def test_distances_of_twins_of_twins():
    # Each level of nearness is lost in float64 at the scale of the level above.
    d = 5_000
    levels = [torch.randn(d, generator=generator(i)).double() for i in range(4)]
    x = torch.zeros(8, d)
    for row in range(8):
        value = 1e-3 * levels[0] * (row & 1)
        value = value + 1e-12 * levels[1] * (row >> 1 & 1) + 1e-22 * levels[2] * (row >> 2)
        x[row] = value.float()
    x[0] += 1.0
    assert largest_error(Rows(x).distances, direct(x)) < 1e-6


@pytest.mark.parametrize("d", [200, 300_000])
def test_identical_rows_have_identical_distances(d):
    x = random_rows(12, d, seed=1)
    x[[4, 9, 11]] = x[2].clone()
    found = Rows(x).distances
    for other in (4, 9, 11):
        assert torch.equal(found[2], found[other])
        assert float(found[2, other]) == 0


def near_twins(seed: int, d: int) -> Tensor:
    x = random_rows(12, d, seed)
    for twin, row in ((3, 1), (7, 1), (8, 2), (10, 6)):
        x[twin] = x[row]
        x[twin, ::5] += 1e-6 * torch.randn(len(range(0, d, 5)), generator=generator(seed + twin))
    return x


@pytest.mark.parametrize("seed", range(8))
def test_bulyan_selects_among_near_twins_as_float64_does(seed):
    x = near_twins(seed, 300_000)
    expected = iterated_krum(direct(x), 2, 8).tolist()
    assert run(Bulyan(2), x).shares.nonzero().squeeze(1).tolist() == expected


@pytest.mark.parametrize("d", [1_000, 300_000])
def test_bulyan_takes_the_first_of_identical_rows(d):
    x = random_rows(12, d, seed=4)
    x[[5, 6, 11]] = x[1].clone()
    x[[8, 9]] = x[3].clone()
    kept = iterated_krum(Rows(x).distances, 2, 8).tolist()
    assert kept == iterated_krum(direct(x), 2, 8).tolist()


def test_caf_at_an_offset():
    x = 1e4 + 1e-3 * torch.randn(11, 3_000, generator=generator(0))
    x[9:] += 0.01
    near = (x.double() - 1e4).float()
    assert relative_error(run(CAF(2), x).shares, run(CAF(2), near).shares) < 1e-4


def test_refinement_keeps_no_copy_of_the_matrix():
    x = 1e4 + 1e-3 * torch.randn(4, 2_000_000, generator=generator(0))
    inner = linalg.gram(x)
    with torch.profiler.profile(profile_memory=True) as profile:
        distances.pairwise(x, inner)
    allocated = max(event.self_cpu_memory_usage for event in profile.events())
    assert 0 < allocated < 0.15 * x.nbytes
    assert np.isfinite(inner.numpy()).all()
