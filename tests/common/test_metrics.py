"""Metrics from counts against scikit-learn and fairlearn on the raw rows."""

from __future__ import annotations

import numpy as np
import pytest
from fairlearn.metrics import (
    demographic_parity_difference,
    equal_opportunity_difference,
    equalized_odds_difference,
)
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from common import metrics


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_accuracy_and_f1(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    truth, predicted = rng.integers(0, classes, (2, 200))
    counts = confusion_matrix(truth, predicted, labels=range(classes)).astype(float)
    assert metrics.accuracy(counts) == pytest.approx(accuracy_score(truth, predicted))
    assert metrics.macro_f1(counts) == pytest.approx(f1_score(truth, predicted, average="macro"))


@pytest.mark.parametrize("seed", range(5))
def test_gaps_equal_fairlearn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 3, 400)
    truth = (rng.random(400) < 0.3 + 0.2 * groups).astype(int)
    predicted = np.where(rng.random(400) < 0.7, truth, 1 - truth)
    counts = [
        confusion_matrix(truth[groups == g], predicted[groups == g], labels=[0, 1]).astype(float)
        for g in range(3)
    ]
    found = metrics.gaps(counts)
    raw = {"y_true": truth, "y_pred": predicted, "sensitive_features": groups}
    assert found["demographic_parity"] == pytest.approx(demographic_parity_difference(**raw))
    assert found["equal_opportunity"] == pytest.approx(equal_opportunity_difference(**raw))
    assert found["equalized_odds"] == pytest.approx(equalized_odds_difference(**raw))


def test_rates_of_a_known_table() -> None:
    tpr, fpr = metrics.rates(np.array([[80.0, 20.0], [5.0, 45.0]]))
    assert (tpr, fpr) == (pytest.approx(0.9), pytest.approx(0.2))


def test_nothing_to_measure_is_nan() -> None:
    assert np.isnan(metrics.accuracy(np.zeros((2, 2))))
    assert np.isnan(metrics.macro_f1(np.zeros((2, 2))))
    assert np.isnan(metrics.gaps([np.eye(2)])["equalized_odds"])
