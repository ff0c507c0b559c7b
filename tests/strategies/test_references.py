"""Rules that no other library has in this form, against slow and plain code."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from sklearn.cluster import MeanShift, estimate_bandwidth

from strategies import linalg
from strategies.robust.bulyan import Bulyan
from strategies.robust.caf import CAF
from strategies.robust.centred_clipping import CentredClipping
from strategies.robust.dnc import DnC
from strategies.robust.fltrust import FLTrust
from strategies.robust.geometric_median import GeometricMedian
from strategies.robust.krum import Krum
from strategies.robust.mda import MDA, tightest_subset
from strategies.robust.meamed import MeaMed
from strategies.robust.mean import Mean
from strategies.robust.median import Median
from strategies.robust.monna import MoNNA
from strategies.robust.multi_krum import MultiKrum
from strategies.robust.signguard import SignGuard, largest_cluster
from strategies.robust.trimmed_mean import TrimmedMean
from strategies.rows import Rows
from strategies.sorting import batcher, network
from strategies.sorting import run as run_network
from strategies.stage import Context
from tests.strategies.oracle import random_rows, relative_error, run


def random_weights(n: int, seed: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    weights = torch.rand(n, generator=g, dtype=torch.float64) + 0.05
    return weights / weights.sum()


def bulyan(x: np.ndarray, f: int) -> np.ndarray:
    left, chosen = list(range(len(x))), []
    while len(chosen) < len(x) - 2 * f:
        scores = {}
        for i in left:
            gaps = sorted(np.sum((x[i] - x[j]) ** 2) for j in left if j != i)
            near = gaps[: len(left) - f - 1]
            scores[i] = np.mean(near) if near else 0.0
        best = min(left, key=lambda i: scores[i])
        chosen.append(best)
        left.remove(best)
    picked = x[chosen]
    keep = len(chosen) - 2 * f
    out = np.empty(x.shape[1])
    for c in range(x.shape[1]):
        column = picked[:, c]
        order = np.argsort(np.abs(column - np.median(column)))
        out[c] = column[order[:keep]].mean()
    return out


@pytest.mark.parametrize(("n", "f"), [(7, 1), (11, 2), (12, 2), (19, 4), (6, 0)])
def test_bulyan(n, f):
    x = random_rows(n, 300, seed=n, outliers=f)
    expected = torch.from_numpy(bulyan(x.double().numpy(), f))
    assert relative_error(run(Bulyan(f), x).update, expected) < 1e-5


def test_bulyan_selects_again_after_every_pick():
    # Taking the best scores of one Krum round (as Flower does) would pick the three twins first
    # and then everything near them; the paper's iteration scores the rest without them.
    g = torch.Generator().manual_seed(1)
    differs = 0
    for _ in range(20):
        x = torch.randn(11, 30, generator=g)
        one_shot = set(MultiKrumIndices(x, 2, 7))
        kept = run(Bulyan(2), x).shares.nonzero().squeeze(1).tolist()
        differs += set(kept) != one_shot
    assert differs > 0


def MultiKrumIndices(x: torch.Tensor, f: int, count: int) -> list[int]:
    return run(MultiKrum(f), x).scores.argsort()[:count].tolist()


def test_caf_with_the_exact_eigenvector():
    x = random_rows(12, 200, seed=3, outliers=3).double()
    c, best, least = torch.ones(12).double(), None, float("inf")
    while c.sum() > 12 - 6:
        mean = (c[:, None] * x).sum(0) / c.sum()
        gaps = x - mean
        covariance = (c[:, None] * gaps).T @ gaps / c.sum()
        values, vectors = torch.linalg.eigh(covariance)
        if values[-1] < least:
            best, least = mean, values[-1]
        tau = (gaps @ vectors[:, -1]) ** 2
        c = c * (1 - tau / tau[c > 0].max())
    assert relative_error(run(CAF(3), x.float()).update, best) < 1e-5


def test_dnc_on_all_columns():
    x = random_rows(10, 400, seed=5, outliers=2)
    gaps = (x - x.mean(0)).double().numpy()
    scores = (gaps @ np.linalg.svd(gaps)[2][0]) ** 2
    expected = x[np.argsort(scores)[:8]].mean(0)
    result = run(DnC(2, columns=400), x)
    assert relative_error(result.update, expected) < 1e-5
    np.testing.assert_allclose(result.scores.numpy(), scores, rtol=1e-4)
    assert result.shares[-2:].tolist() == [0, 0]


def test_dnc_drops_what_any_iteration_drops_and_follows_its_generator():
    x = random_rows(12, 5_000, seed=6, outliers=2)
    rule = DnC(2, columns=100, iterations=3)
    assert torch.equal(run(rule, x, seed=1).update, run(rule, x, seed=1).update)
    kept = run(rule, x, seed=1).shares > 0
    assert 12 - 6 <= int(kept.sum()) <= 10
    assert not bool(kept[-2:].any())


@pytest.mark.parametrize("seed", range(12))
def test_signguards_clusters_are_those_of_scikit_learn(seed):
    g = torch.Generator().manual_seed(seed)
    points = torch.rand(14, 3, generator=g, dtype=torch.float64) * 0.1
    points[9:] += torch.rand(3, generator=g, dtype=torch.float64) * 0.6
    bandwidth = estimate_bandwidth(points.numpy(), quantile=0.5)
    labels = MeanShift(bandwidth=bandwidth).fit(points.numpy()).labels_
    sizes = np.bincount(labels)
    if (sizes == sizes.max()).sum() > 1:
        pytest.skip("two clusters of the same size")
    assert largest_cluster(points).tolist() == (labels == sizes.argmax()).tolist()


def test_signguard_averages_clipped_rows_of_usual_signs():
    x = random_rows(10, 3_000, seed=7) + 1.0
    x[8] = -x[8]
    x[9] = 40 * x[9]
    result = run(SignGuard(2), x)
    assert result.shares[8] == 0
    assert result.shares[9] == 0
    norms = x.norm(dim=1)
    clipped = x * (norms.median() / norms).clamp_max(1.0)[:, None]
    expected = (result.shares[:, None] * clipped).sum(0)
    assert int((result.shares > 0).sum()) >= 5
    assert relative_error(result.update, expected) < 1e-5


def test_fltrust_by_its_formula():
    x = random_rows(6, 500, seed=8)
    x[5] = -x[5]
    g0 = 0.3 * x[:5].mean(0)
    cosines = torch.cosine_similarity(x, g0[None], dim=1)
    trust = cosines.clamp_min(0)
    scaled = x * (g0.norm() / x.norm(dim=1))[:, None]
    expected = (trust[:, None] * scaled).sum(0) / trust.sum()
    result = run(FLTrust(), x, reference=g0)
    assert relative_error(result.update, expected) < 1e-5
    assert result.shares[5] == 0
    assert not bool(run(FLTrust(), -x[:5], reference=g0).update.any())


@pytest.mark.parametrize("seed", range(30))
def test_mda_finds_the_tightest_subset_and_the_first_of_them(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(3, 10))
    f = int(rng.integers(0, (n + 1) // 2))
    # Whole numbers make many ties.
    d = rng.integers(1, 6, (n, n)) if seed % 2 else rng.random((n, n))
    d = torch.from_numpy(np.triu(d, 1) + np.triu(d, 1).T).double()
    best = min(
        combinations(range(n), n - f),
        key=lambda s: max((float(d[i, j]) for i, j in combinations(s, 2)), default=0.0),
    )
    assert tightest_subset(d, f).tolist() == list(best)


@pytest.mark.parametrize("seed", range(20))
def test_mixed_rows_have_one_distance_for_each_pair(seed):
    rows = Rows(random_rows(7, 30, seed=seed)).mix(
        torch.softmax(random_rows(7, 7, seed).double(), 1)
    )
    assert torch.equal(rows.distances, rows.distances.T)
    assert len(tightest_subset(rows.distances, 3)) == 4


def test_mda_where_trying_all_subsets_is_hopeless():
    x = random_rows(60, 40, seed=9, outliers=12)
    assert run(MDA(12), x).shares.nonzero().squeeze(1).tolist() == list(range(48))


def test_weighted_median():
    x, w = random_rows(9, 200, seed=10), random_weights(9, 1)
    expected = []
    for column in x.T.double():
        order = column.argsort()
        below = w[order].cumsum(0)
        expected.append(float(column[order][int((below < 0.5).sum())]))
    result = run(Median(1), x, w)
    assert relative_error(result.update, torch.tensor(expected)) < 1e-6
    assert float(result.shares.sum()) == pytest.approx(1.0, abs=1e-5)


def test_weighted_median_counts_a_weight_of_two_as_two_partners():
    x = random_rows(6, 500, seed=11)
    weights = torch.tensor([2, 1, 1, 1, 1, 2]).double() / 8
    twice = torch.cat([x, x[[0, 5]]])
    assert torch.equal(run(Median(1), x, weights).update, run(Median(1), twice).update)


@pytest.mark.parametrize("rule", [TrimmedMean(2), MeaMed(2)])
def test_weighted_coordinatewise_rules(rule):
    x, w = random_rows(9, 300, seed=12), random_weights(9, 2)
    expected = []
    for column in x.T.double():
        if isinstance(rule, TrimmedMean):
            kept = column.argsort()[2:7]
        else:
            kept = (column - column.median()).abs().argsort()[:7]
        expected.append(float((w[kept] * column[kept]).sum() / w[kept].sum()))
    assert relative_error(run(rule, x, w).update, torch.tensor(expected)) < 1e-5


def test_shares_of_coordinatewise_rules_are_what_they_say():
    x = random_rows(7, 4_000, seed=13)
    result = run(TrimmedMean(2), x)
    ranks = x.argsort(0).argsort(0)
    expected = ((ranks >= 2) & (ranks < 5)).double().mean(1) / 3
    torch.testing.assert_close(result.shares, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("rule", [GeometricMedian(1), CentredClipping(1, tau=2.0, iterations=2)])
def test_weighted_rules_count_a_weight_of_two_as_two_partners(rule):
    x = random_rows(6, 500, seed=14)
    weights = torch.tensor([2, 1, 1, 1, 1, 2]).double() / 8
    twice = torch.cat([x, x[[0, 5]]])
    assert relative_error(run(rule, x, weights).update, run(rule, twice).update) < 1e-5


def test_weighted_geometric_median_is_a_minimum():
    x, w = random_rows(8, 40, seed=15).double(), random_weights(8, 3)
    z = run(GeometricMedian(2), x.float(), w).update.double()
    z.requires_grad_(True)
    (w * (x - z).norm(dim=1)).sum().backward()
    assert float(z.grad.norm()) < 1e-4


@pytest.mark.parametrize("rule", [MultiKrum(2), DnC(2), MDA(2)])
def test_selecting_rules_weight_those_selected(rule):
    x, w = random_rows(10, 300, seed=16, outliers=2), random_weights(10, 4)
    w = 0.05 + 0.5 * w
    w = w / w.sum()
    result = run(rule, x, w)
    kept = result.shares > 0
    assert kept.tolist() == [True] * 8 + [False] * 2
    assert float(result.shares.sum()) == pytest.approx(1.0)
    assert float(result.shares.max()) <= max(float(w.max()), 1 / 8) + 1e-9
    expected = (result.shares[:, None] * x).sum(0)
    assert relative_error(result.update, expected) < 1e-5


def test_krum_ignores_weights():
    x, w = random_rows(9, 100, seed=17, outliers=2), random_weights(9, 5)
    assert torch.equal(run(Krum(2), x).update, run(Krum(2), x, w).update)


def test_mean_is_the_weighted_sum():
    x, w = random_rows(9, 100, seed=18), random_weights(9, 6)
    assert relative_error(run(Mean(), x, w).update, (w[:, None] * x).sum(0)) < 1e-6


@pytest.mark.parametrize("n", [*range(1, 34), 50, 100])
def test_network_sorts(n):
    x = random_rows(n, 300, seed=n)
    rows = [r.clone() for r in x]
    run_network(network(n, frozenset(range(n)), frozenset()), rows, torch.empty(300))
    assert torch.equal(torch.stack(rows), x.sort(0).values)
    assert len(network(n, frozenset(), frozenset({n // 2}))) <= len(batcher(n))


def test_pruning_pays():
    full = len(batcher(20))
    assert len(network(20, frozenset(), frozenset({9, 10}))) < full
    assert len(network(20, frozenset(), frozenset(range(1, 19)))) < full / 1.5


def test_threads_change_nothing():
    x = random_rows(9, 400_000, seed=20, outliers=2)
    once = [run(rule, x).update for rule in (Median(2), MultiKrum(2), GeometricMedian(2))]
    torch.set_num_threads(2)
    try:
        twice = [run(rule, x).update for rule in (Median(2), MultiKrum(2), GeometricMedian(2))]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    for a, b in zip(once, twice, strict=True):
        assert relative_error(a, b) < 1e-6


@pytest.mark.parametrize("d", [1, 100, 65_537, 262_145, 700_000])
def test_gram(d):
    x = random_rows(6, d, seed=d)
    exact = x.double() @ x.double().T
    scale = exact.diagonal().sqrt()
    error = (linalg.gram(x) - exact).abs() / (scale[:, None] * scale[None, :])
    assert float(error.max()) < 1e-7
    assert torch.equal(linalg.gram(x), linalg.gram(x).T)


def test_gram_survives_lengths_beyond_float32():
    x = random_rows(5, 1_000, seed=1)
    x[4] *= 1e25
    g = linalg.gram(x)
    assert bool(torch.isfinite(g).all())
    assert float(linalg.squared_distances(g)[0, 1]) > 0


def test_distances_of_rows_that_nearly_coincide():
    # Raw weights of standard deviation 0.04 that drift by 1e-5: the naive float32 form
    # |x|^2 + |y|^2 - 2xy returns noise, partly negative, and picks a wrong partner.
    g = torch.Generator().manual_seed(0)
    start = 0.04 * torch.randn(1_000_000, generator=g, dtype=torch.float64)
    drift = 1e-5 * torch.randn(8, 1_000_000, generator=g, dtype=torch.float64)
    drift[[1, 4]] *= 3
    drift[6] *= 0.5
    x = (start + drift).float()
    squares = x.square().sum(1)
    naive = squares[:, None] + squares[None, :] - 2 * x @ x.T
    exact = torch.cdist(x.double(), x.double()) ** 2
    off = ~torch.eye(8, dtype=torch.bool)
    assert float(((naive - exact)[off] / exact[off]).abs().max()) > 0.5
    ours = linalg.squared_distances(linalg.gram(x))
    assert float(((ours - exact)[off] / exact[off]).abs().max()) < 1e-5
    result = run(Krum(2), x)
    assert result.shares.argmax() == 6
    assert run(MultiKrum(2), x).shares[[1, 4]].tolist() == [0, 0]
    from_deltas = run(Krum(2), drift.float())
    assert from_deltas.shares.argmax() == 6


@pytest.mark.parametrize("size", [1, 5, 40_000])
def test_monna_with_a_pivot_measures_differences_themselves(size: int) -> None:
    """Near rows far from zero: inner products of float32 would have lost their distances."""
    generator = torch.Generator().manual_seed(size)
    rows = 1000 + 1e-3 * torch.randn(7, size, generator=generator)
    expected = (rows.double() - rows[3].double()).square().sum(1).sqrt()
    result = MoNNA(f=2, pivot=3).apply(
        Rows(rows), torch.full((7,), 1 / 7, dtype=torch.float64), {}, Context(generator)
    )
    assert result.scores is not None
    torch.testing.assert_close(result.scores, expected, rtol=1e-6, atol=0)
    kept = expected.argsort()[:5]
    torch.testing.assert_close(
        result.update.double(), rows[kept].double().mean(0), rtol=1e-6, atol=0
    )
