"""Membership scores: the rates and the bound that they come to."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from auditing.membership import judge_scores


def drawn(n: int, held_out: float, shift: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    inside = generator.random(n) >= held_out
    return generator.standard_normal(n) + shift * inside, inside


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_rates_equal_scikit_learn(shift: float) -> None:
    scores, inside = drawn(3000, 0.1, shift, 0)
    found = judge_scores(np.round(scores, 2), inside, 0.1, 1e-6, 0.95, 0)
    assert found.auc == pytest.approx(roc_auc_score(inside, np.round(scores, 2)))
    false, true, _ = roc_curve(inside, np.round(scores, 2), drop_intermediate=False)
    assert found.at_false_positive_rate <= 0.01
    assert found.true_positive_rate == pytest.approx(true[false <= 0.01].max())
    low, high = found.true_positive_interval
    assert low < found.true_positive_rate < high


@pytest.mark.parametrize("held_out", [0.1, 0.5, 0.8])
def test_scores_that_know_nothing_show_nothing(held_out: float) -> None:
    bounds = []
    for seed in range(100):
        scores, inside = drawn(600, held_out, 0.0, seed)
        found = judge_scores(scores, inside, held_out, 1e-6, 0.95, seed)
        bounds.append(found.epsilon_lower_bound)
    assert sum(bound > 0 for bound in bounds) <= 11


def test_scores_that_know_everything_show_it() -> None:
    scores, inside = drawn(2000, 0.2, 20.0, 3)
    found = judge_scores(scores, inside, 0.2, 0.0, 0.95, 0)
    assert found.auc == 1.0
    assert found.epsilon_lower_bound > 2.5
