"""What must hold for any updates: invariances, and bounds under arbitrary malicious rows."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from strategies.pre.arc import ARC
from strategies.pre.nnm import NNM
from strategies.pre.static_clipping import StaticClipping
from strategies.robust.centred_clipping import CentredClipping
from strategies.robust.dnc import DnC
from strategies.robust.fltrust import FLTrust
from strategies.robust.mda import MDA
from strategies.robust.mean import Mean
from strategies.robust.median import Median
from strategies.robust.signguard import SignGuard
from strategies.robust.trimmed_mean import TrimmedMean
from strategies.rows import Rows
from strategies.stage import RobustRule
from tests.strategies.oracle import context, every_rule, random_rows, relative_error, run, uniform

F = 2
RULES = every_rule(F)
ROBUST = [rule for rule in RULES if not isinstance(rule, Mean)]


def name(rule: object) -> str:
    return type(rule).__name__


def without(*kinds: type) -> list[RobustRule]:
    return [rule for rule in RULES if not isinstance(rule, kinds)]


def merged(rule: RobustRule, x: Tensor, reference: Tensor | None = None) -> Tensor:
    return run(rule, x, reference=x[0] if reference is None else reference).update


cohorts = st.builds(
    lambda n, d, seed, outliers: random_rows(n, d, seed, outliers),
    n=st.integers(11, 16),
    d=st.integers(5, 60),
    seed=st.integers(0, 10_000),
    outliers=st.integers(0, F),
)


@pytest.mark.parametrize("rule", without(SignGuard), ids=name)
@given(x=cohorts, seed=st.integers(0, 1000))
@settings(max_examples=12, deadline=None)
def test_the_order_of_partners_does_not_matter(rule, x, seed):
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    result = run(rule, x, reference=x[0])
    permuted = run(rule, x[order], reference=x[0])
    if isinstance(rule, MDA):
        # Of several sets of the same diameter it takes the first.
        for r, rows in ((result, x), (permuted, x[order])):
            kept = rows[r.shares > 0]
            r.update.copy_(torch.cdist(kept.double(), kept.double()).max())
    assert relative_error(permuted.update, result.update) < 1e-4
    if not isinstance(rule, MDA):
        torch.testing.assert_close(permuted.shares, result.shares[order], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("seed", range(10))
def test_the_order_of_partners_does_not_matter_to_signguard(seed):
    # Where two clusters have the same size either may win, so let one be clearly larger.
    x = random_rows(13, 2_000, seed) + 0.5
    x[3] = -x[3]
    x[7] = -x[7]
    order = torch.randperm(13, generator=torch.Generator().manual_seed(seed))
    result, permuted = run(SignGuard(F), x), run(SignGuard(F), x[order])
    assert result.shares[[3, 7]].tolist() == [0, 0]
    torch.testing.assert_close(permuted.shares, result.shares[order])


@pytest.mark.parametrize("rule", without(CentredClipping, SignGuard, FLTrust), ids=name)
@given(x=cohorts, shift=st.floats(-5, 5))
@settings(max_examples=12, deadline=None)
def test_a_common_shift_shifts_the_result(rule, x, shift):
    assert relative_error(merged(rule, x + shift), merged(rule, x) + shift) < 1e-4


@pytest.mark.parametrize("rule", RULES, ids=name)
@given(x=cohorts, exponent=st.integers(-30, 20))
@settings(max_examples=12, deadline=None)
def test_a_common_scale_scales_the_result(rule, x, exponent):
    factor = 2.0**exponent
    assert relative_error(merged(rule, x * factor), merged(rule, x) * factor) < 1e-4


@pytest.mark.parametrize("rule", RULES, ids=name)
@given(n=st.integers(11, 15), d=st.integers(1, 50), seed=st.integers(0, 1000))
@settings(max_examples=8, deadline=None)
def test_identical_updates_give_that_update(rule, n, d, seed):
    row = random_rows(1, d, seed)
    result = run(rule, row.expand(n, d).contiguous(), reference=row[0])
    assert relative_error(result.update, row[0]) < 1e-5


@pytest.mark.parametrize("rule", RULES, ids=name)
def test_updates_of_zeros_give_zeros(rule):
    update = run(rule, torch.zeros(11, 20), reference=torch.zeros(20)).update
    assert torch.equal(update, torch.zeros(20))


malicious = st.one_of(
    st.tuples(st.just("far"), st.floats(1, 1e11)),
    st.tuples(st.just("noise"), st.floats(0, 1e9)),
    st.tuples(st.just("flip"), st.floats(-100, 100)),
    st.tuples(st.just("near"), st.floats(-4, 4)),
)


def rows_of(kind: tuple[str, float], honest: Tensor, seed: int) -> Tensor:
    what, size = kind
    g = torch.Generator().manual_seed(seed)
    noise = torch.randn(F, honest.shape[1], generator=g)
    if what == "far":
        return torch.full_like(noise, size / math.sqrt(honest.shape[1]))
    if what == "noise":
        return size * noise
    mean = honest.mean(0)
    return (size * mean if what == "flip" else mean + size * honest.std(0)).expand(F, -1)


@pytest.mark.parametrize("rule", ROBUST, ids=name)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(11, 16),
    d=st.integers(2, 60),
    kind=malicious,
    first=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_f_arbitrary_rows_move_a_robust_rule_only_within_its_bound(rule, seed, n, d, kind, first):
    # kappa-robustness (Allouah et al. 2023): the squared distance to the honest mean stays below
    # kappa times the honest variance, here with a generous common kappa for f/n <= 2/11 and a
    # factor for the dimension in coordinate-wise and single-row rules.
    honest = random_rows(n - F, d, seed)
    bad = rows_of(kind, honest, seed)
    if isinstance(rule, DnC):
        bad = bad[:1].expand(F, -1)  # its bound is for attackers who push together
    x = torch.cat([bad, honest] if first else [honest, bad])
    update = merged(rule, x, reference=honest.mean(0)).double()
    centre = honest.double().mean(0)
    variance = float(((honest.double() - centre) ** 2).sum(1).mean())
    if isinstance(rule, (SignGuard, CentredClipping, FLTrust)):
        # These do not follow a common shift: their bound is in the rows' own length.
        variance = float((honest.double() ** 2).sum(1).max())
    assert bool(torch.isfinite(update).all())
    assert float(((update - centre) ** 2).sum()) <= 8 * variance


@pytest.mark.parametrize("rule", [Median(F), TrimmedMean(F)], ids=name)
@given(seed=st.integers(0, 1000), kind=malicious)
@settings(max_examples=25, deadline=None)
def test_every_coordinate_stays_within_the_honest_range(rule, seed, kind):
    honest = random_rows(9, 40, seed)
    x = torch.cat([rows_of(kind, honest, seed), honest])
    slack = 1e-5
    update = merged(rule, x)
    assert bool((update <= honest.max(0).values + slack).all())
    assert bool((update >= honest.min(0).values - slack).all())


@given(seed=st.integers(0, 1000), kind=malicious, cap=st.floats(0.12, 0.24))
@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("rule", [Median(F), TrimmedMean(F)], ids=name)
def test_weights_up_to_the_cap_do_not_break_the_range(rule, seed, kind, cap):
    honest = random_rows(9, 40, seed)
    x = torch.cat([rows_of(kind, honest, seed), honest])
    weights = torch.full((11,), (1 - F * cap) / 9, dtype=torch.float64)
    weights[:F] = cap
    update = run(rule, x, weights).update
    assert bool((update <= honest.max(0).values + 1e-5).all())
    assert bool((update >= honest.min(0).values - 1e-5).all())


def test_the_mean_alone_can_be_moved_anywhere():
    x = random_rows(11, 10, 0)
    x[0] = 1e9
    assert float(run(Mean(), x).update.norm()) > 1e8


@given(x=cohorts)
@settings(max_examples=20, deadline=None)
def test_nnm_brings_rows_together_and_keeps_the_mean_of_equals(x):
    step = NNM(F).apply(Rows(x), uniform(len(x)), context())
    assert step.mixing is not None
    torch.testing.assert_close(step.mixing.sum(1), torch.ones(len(x)).double())
    assert float(step.rows.distances.max()) <= float(Rows(x).distances.max()) + 1e-6
    exact = step.rows.dense().double()
    torch.testing.assert_close(step.rows.gram, exact @ exact.T, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("stage", [ARC(F), StaticClipping(2.0)], ids=name)
@given(x=cohorts)
@settings(max_examples=20, deadline=None)
def test_clipping_only_ever_shortens(stage, x):
    step = stage.apply(Rows(x), uniform(len(x)), context())
    before, after = Rows(x).norms, Rows(step.rows.dense()).norms
    assert bool((after <= before * (1 + 1e-5)).all())
    torch.testing.assert_close(after, step.rows.norms, rtol=1e-4, atol=1e-6)
