"""Fair weights: their formulas, their caps, and what a lie can buy."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UserError
from strategies.fair.afl import AFL, project_to_simplex
from strategies.fair.by_examples import ByExamples
from strategies.fair.fairfed import FairFed
from strategies.fair.propfair import PropFair
from strategies.fair.qffl import QFFL
from strategies.fair.term import TERM
from strategies.fair.uniform import Uniform
from strategies.weights import cap_weights, selected_weights

LOSSES = [0.2, 0.5, 0.9, 1.4]


def report(losses=LOSSES, examples=(100, 100, 300, 500), gaps=(0.1, 0.0, -0.2, 0.4)):
    return {
        f"p{i}": {"loss": loss, "examples": e, "gap": g, "accuracy": 1 - loss / 4}
        for i, (loss, e, g) in enumerate(zip(losses, examples, gaps, strict=True))
    }


def weights(rule, **changes):
    return rule.weights(report(**changes), rule.init())[0].tolist()


def scaled(values):
    return pytest.approx([v / sum(values) for v in values])


def test_formulas():
    assert weights(Uniform()) == [0.25] * 4
    assert weights(ByExamples(cap=1.0)) == scaled([100, 100, 300, 500])
    assert weights(ByExamples(max_examples=300, cap=1.0)) == scaled([100, 100, 300, 300])
    assert weights(QFFL(q=2.0, cap=1.0)) == scaled([v**2 for v in LOSSES])
    assert weights(QFFL(q=0.0, cap=1.0)) == [0.25] * 4
    assert weights(TERM(t=3.0, cap=1.0)) == scaled([math.exp(3 * v) for v in LOSSES])
    assert weights(PropFair(ceiling=2.0, cap=1.0)) == scaled([1 / (2 - v) for v in LOSSES])


def test_an_enormous_tilt_does_not_overflow():
    assert weights(TERM(t=1e308, cap=0.4))[-1] == pytest.approx(0.4)


def test_propfair_beyond_its_ceiling_has_a_bounded_slope():
    rule = PropFair(ceiling=1.0, margin=0.2, cap=1.0)
    assert weights(rule) == scaled([1 / 0.8, 1 / 0.5, 1 / 0.2, 1 / 0.2])


def test_noisy_counts_below_one_count_as_one():
    assert weights(ByExamples(cap=1.0), examples=(-30, 1, 1, 1)) == [0.25] * 4


def test_weights_are_gradients_of_the_papers_objectives():
    losses = torch.tensor(LOSSES, dtype=torch.float64, requires_grad=True)
    objectives = {
        QFFL(q=1.5, cap=1.0): (losses**2.5).sum() / 2.5,
        TERM(t=2.0, cap=1.0): torch.logsumexp(2 * losses, 0) / 2,
        PropFair(ceiling=3.0, cap=1.0): -torch.log(3 - losses).sum(),
    }
    for rule, objective in objectives.items():
        (gradient,) = torch.autograd.grad(objective, losses)
        assert weights(rule) == scaled(gradient.tolist())


def test_afl_climbs_to_the_worst_mixture():
    rule, state = AFL(lr=0.1, cap=1.0), AFL().init()
    first, state = rule.weights(report(), state)
    mean = sum(LOSSES) / 4
    assert first.tolist() == pytest.approx([0.25 + 0.1 * (v - mean) for v in LOSSES])
    for _ in range(60):
        last, state = rule.weights(report(), state)
    assert last.tolist() == pytest.approx([0, 0, 0, 1])


def test_afl_keeps_the_mass_of_partners_that_were_not_heard():
    rule = AFL(lr=0.1, cap=1.0)
    _, state = rule.weights(report(), rule.init())
    some = {k: v for k, v in report().items() if k in ("p0", "p3")}
    _, after = rule.weights(some, state)
    assert after["p1"] == state["p1"]
    assert float(sum(after.values())) == pytest.approx(float(sum(state.values())))
    assert after["p3"] > state["p3"]


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=9))
def test_projection_is_the_nearest_point_of_the_simplex(values):
    point = torch.tensor(values, dtype=torch.float64)
    onto = project_to_simplex(point)
    assert float(onto.sum()) == pytest.approx(1.0)
    assert bool((onto >= 0).all())
    # Optimality: the residual is equal on the support and no larger off it.
    residual = point - onto
    support = onto > 0
    top = float(residual[support].max())
    assert float(residual[support].min()) == pytest.approx(top, abs=1e-9)
    assert bool((residual <= top + 1e-9).all())


def test_fairfed_moves_towards_partners_near_the_global_gap():
    rule = FairFed(beta=0.5, cap=1.0)
    moved, state = rule.weights(report(), rule.init())
    before = torch.tensor([0.1, 0.1, 0.3, 0.5]).double()
    gaps = torch.tensor([0.1, 0.0, -0.2, 0.4]).double()
    distance = (before @ gaps - gaps).abs()
    expected = (before - 0.5 * (distance - distance.mean())).clamp_min(0)
    torch.testing.assert_close(moved, expected / expected.sum())
    again, _ = rule.weights(report(), state)
    assert again[0] > moved[0]
    assert float(again.sum()) == pytest.approx(1.0)


def test_fairfed_goes_by_accuracy_where_a_partner_has_no_gap():
    told = report()
    del told["p1"]["gap"], told["p3"]["gap"]
    rule = FairFed(beta=0.5, cap=1.0)
    moved, _ = rule.weights(told, rule.init())
    before = torch.tensor([0.1, 0.1, 0.3, 0.5]).double()
    accuracy = torch.tensor([1 - loss / 4 for loss in LOSSES]).double()
    distance = (before @ accuracy - accuracy).abs()
    gap = (0.1 * 0.1 + 0.3 * -0.2) / 0.4
    distance[0], distance[2] = abs(gap - 0.1), abs(gap + 0.2)
    expected = (before - 0.5 * (distance - distance.mean())).clamp_min(0)
    torch.testing.assert_close(moved, expected / expected.sum())


ALL = [ByExamples(), QFFL(), AFL(), TERM(), FairFed(), PropFair()]


@pytest.mark.parametrize("rule", ALL, ids=lambda r: type(r).__name__)
def test_a_lie_buys_at_most_the_cap(rule):
    lie = report(losses=(0.2, 0.5, 0.9, 20.0), examples=(100, 100, 300, 10**11))
    state = rule.init()
    for _ in range(5):
        found, state = rule.weights(lie, state)
        assert float(found.max()) <= rule.cap + 1e-9
        assert float(found.sum()) == pytest.approx(1.0)
        assert bool((found >= 0).all())


@pytest.mark.parametrize("rule", ALL, ids=lambda r: type(r).__name__)
def test_a_cap_that_cannot_hold_is_refused(rule):
    with pytest.raises(UserError, match=r"strategy\.fair\.cap.*1/n = 0\.5.*n=2"):
        rule.check(2)
    rule.check(1)
    rule.check(3)


@given(
    st.lists(st.floats(0, 100), min_size=1, max_size=12).filter(lambda v: sum(v) > 1e-6),
    st.floats(0.01, 1),
)
def test_cap(values, cap):
    raw = torch.tensor(values, dtype=torch.float64)
    capped = cap_weights(raw, cap)
    bound = max(cap, 1 / len(values))
    assert float(capped.sum()) == pytest.approx(1.0)
    assert float(capped.max()) <= bound + 1e-9
    assert bool((capped >= 0).all())
    order = raw.argsort()
    assert bool((capped[order].diff() >= -1e-9).all())
    if float(raw.max() / raw.sum()) <= bound:
        torch.testing.assert_close(capped, raw / raw.sum())


def test_cap_next_to_weights_too_small_to_scale():
    capped = cap_weights(torch.tensor([1.0, 5e-324, 0.0], dtype=torch.float64), 0.5)
    assert capped.tolist() == [0.5, 0.25, 0.25]


def test_cap_gives_the_excess_in_proportion():
    assert cap_weights(torch.tensor([6.0, 3.0, 1.0]), 0.5).tolist() == pytest.approx(
        [0.5, 0.375, 0.125]
    )
    assert cap_weights(torch.tensor([1.0, 0.0, 0.0]), 0.5).tolist() == [0.5, 0.25, 0.25]


def test_a_cap_survives_selection():
    weights = torch.tensor([0.3, 0.3, 0.3, 0.05, 0.03, 0.02], dtype=torch.float64)
    after = selected_weights(weights, torch.tensor([0, 3, 4, 5]))
    assert float(after.max()) == pytest.approx(0.3)
    assert float(after.sum()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (QFFL, {"q": -1.0}, "q: must be >= 0, got -1"),
        (TERM, {"t": math.inf}, "t: must be a finite number"),
        (AFL, {"cap": 0.0}, "cap: must be > 0, got 0"),
        (PropFair, {"margin": 0.0}, "margin: must be > 0"),
        (ByExamples, {"max_examples": 0}, "max_examples: must be >= 1"),
    ],
)
def test_settings_out_of_range(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        kind(**settings)
