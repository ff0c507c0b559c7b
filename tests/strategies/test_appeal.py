"""Appeals: who is heard, who comes back, and how little an attacker can gain."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.appeal import Appeal
from strategies.rows import Rows
from tests.strategies.oracle import random_rows, uniform

D = 30
GOAL = torch.ones(D)


def public_loss(update: torch.Tensor) -> float:
    """A quadratic whose minimum lies in the direction of all ones."""
    return float((update - GOAL).square().mean())


def majority_and(*others: torch.Tensor) -> Rows:
    g = torch.Generator().manual_seed(0)
    direction = GOAL.clone()
    direction[10:] = 0.0  # the majority knows a third of the goal
    rows = 0.3 * direction + 0.01 * torch.randn(8, D, generator=g)
    return Rows(torch.stack([*rows, *others]))


def hear(rows: Rows, appeal: Appeal, dropped: list[int], loss=public_loss):
    n = rows.count
    shares = uniform(n)
    shares[dropped] = 0.0
    shares = shares / shares.sum()
    update = rows.combine(shares)
    return update, appeal.hear(rows, update, uniform(n), shares, loss)


def minority() -> torch.Tensor:
    row = torch.zeros(D)
    row[10:] = 0.3
    return row


def test_an_honest_minority_comes_back_and_a_flipped_update_does_not():
    rows = majority_and(minority(), -GOAL)
    before, verdict = hear(rows, Appeal(weight_cap=0.1), [8, 9])
    assert verdict.appeals[8]["readmitted"]
    assert not verdict.appeals[9]["readmitted"]
    assert verdict.appeals[9]["loss_with"] > verdict.appeals[9]["loss_without"]
    assert float(verdict.shares[8]) == pytest.approx(0.1)
    assert float(verdict.shares[9]) == 0
    assert float(verdict.shares.sum()) == pytest.approx(1.0)
    assert public_loss(verdict.update) < public_loss(before)


def test_nobody_is_heard_when_nobody_was_silenced():
    rows = majority_and()
    update, verdict = hear(rows, Appeal(), [])
    assert verdict.appeals == {}
    assert torch.equal(verdict.update, update)


def test_a_readmitted_row_is_clipped_to_the_accepted_norm():
    rows = majority_and(1000 * minority())
    _, verdict = hear(rows, Appeal(weight_cap=0.1), [8])
    accepted = float(rows.norms[:8].median())
    assert verdict.appeals[8]["readmitted"]
    assert float(rows.norms[8] * verdict.factors[8]) == pytest.approx(accepted)
    contribution = verdict.update - 0.9 * rows.base[:8].mean(0)
    assert float(contribution.norm()) == pytest.approx(0.1 * accepted, rel=1e-3)


def test_weight_and_number_of_the_readmitted_are_bounded():
    rows = majority_and(*[minority() for _ in range(4)])
    dropped = [8, 9, 10, 11]
    _, by_total = hear(rows, Appeal(weight_cap=0.08, total_cap=0.2), dropped)
    assert sum(bool(a["readmitted"]) for a in by_total.appeals.values()) == 2
    _, by_count = hear(rows, Appeal(weight_cap=0.05, total_cap=0.5, max_partners=3), dropped)
    assert sum(bool(a["readmitted"]) for a in by_count.appeals.values()) == 3
    assert float(by_count.shares[dropped].sum()) == pytest.approx(0.15)


def test_nobody_gets_more_than_it_asked_for():
    rows = majority_and(minority())
    asked = torch.full((9,), 0.97 / 8, dtype=torch.float64)
    asked[8] = 0.03
    shares = torch.full((9,), 1 / 8, dtype=torch.float64)
    shares[8] = 0
    verdict = Appeal(weight_cap=0.2, total_cap=0.3).hear(
        rows, rows.combine(shares), asked, shares, public_loss
    )
    assert float(verdict.shares[8]) == pytest.approx(0.03)


def test_updates_that_hurt_only_together_are_judged_together():
    step = torch.zeros(D)
    step[0] = 1.0
    rows = majority_and(step, step.clone())

    def loss(update: torch.Tensor) -> float:
        # One of them is welcome; what two of them do to the first entry is not.
        return float((update[0] > 0.08) * 10.0 - update[0].clamp_max(0.05))

    appeal = Appeal(weight_cap=0.05, total_cap=0.3)
    n = 10
    shares = uniform(n)
    shares[8:] = 0
    rows.base[:8] = 0.01 * torch.randn(8, D, generator=torch.Generator().manual_seed(1))
    rows.base[:8, 0] = 0.0
    rows.base[:8, 1] = 1.0  # the accepted norm is about 1
    verdict = appeal.hear(rows, rows.combine(shares / 0.8), uniform(n), shares / 0.8, loss)
    assert sum(bool(a["readmitted"]) for a in verdict.appeals.values()) == 1


def test_a_loss_that_is_not_finite_hurts():
    rows = majority_and(minority())
    _, verdict = hear(rows, Appeal(), [8], loss=lambda u: float("nan"))
    assert not verdict.appeals[8]["readmitted"]


def test_the_number_of_evaluations_is_bounded():
    rows = majority_and(*[minority() for _ in range(5)])
    calls = []

    def loss(update):
        calls.append(1)
        return public_loss(update)

    hear(rows, Appeal(), [8, 9, 10, 11, 12], loss)
    assert len(calls) <= 2 * 13 + 2 * 4


@given(
    seed=st.integers(0, 500),
    size=st.floats(0, 1e9),
    cap=st.floats(0.01, 0.2),
    blind=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_even_a_fooled_judge_bounds_what_malicious_rows_gain(seed, size, cap, blind):
    honest = random_rows(8, D, seed)
    bad = size * torch.randn(3, D, generator=torch.Generator().manual_seed(seed))
    rows = Rows(torch.cat([honest, bad]))
    appeal = Appeal(weight_cap=cap, total_cap=max(cap, 0.3))
    loss = (lambda u: 0.0) if blind else public_loss
    update, verdict = hear(rows, appeal, [8, 9, 10], loss)
    accepted = float(rows.norms[:8].median())
    moved = float((verdict.update - update).norm())
    joint = min(3 * cap, appeal.total_cap)
    assert moved <= joint * (accepted + float(update.norm())) * (1 + 1e-4)


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"threshold": 0.0}, "threshold: must be > 0"),
        ({"weight_cap": 0.6}, "weight_cap: must be <= 0.5"),
        ({"weight_cap": 0.4, "total_cap": 0.3}, "total_cap: must be >= 0.4"),
        ({"max_partners": 0}, "max_partners: must be >= 1"),
        ({"tolerance": -1.0}, "tolerance: must be >= 0"),
    ],
)
def test_settings_out_of_range(settings_, message):
    with pytest.raises(ValueError, match=message):
        Appeal(**settings_)
