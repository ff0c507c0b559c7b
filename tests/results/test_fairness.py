"""Fairness from counts, against fairlearn and scipy on the raw rows and published intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from fairlearn.metrics import (
    MetricFrame,
    demographic_parity_difference,
    equal_opportunity_difference,
    equalized_odds_difference,
    false_positive_rate,
    selection_rate,
    true_positive_rate,
)
from scipy.stats import binomtest, entropy
from sklearn.metrics import accuracy_score, confusion_matrix

from common.groups import group_key
from results import fairness
from results.fairness import Share, newcombe, spread, wilson


def raw(seed: int, classes: int, rows: int = 1200) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    group = rng.choice(["x", "y", "z"], rows)
    truth = rng.integers(0, classes, rows)
    keep = rng.random(rows) < np.where(group == "x", 0.8, 0.6)
    return truth, np.where(keep, truth, rng.integers(0, classes, rows)), group


def counted(
    truth: np.ndarray, predicted: np.ndarray, group: np.ndarray, classes: int
) -> dict[str, np.ndarray]:
    return {
        str(g): confusion_matrix(
            truth[group == g], predicted[group == g], labels=range(classes)
        ).astype(float)
        for g in np.unique(group)
    }


@pytest.mark.parametrize("seed", range(4))
def test_two_labels_equal_fairlearn(seed: int) -> None:
    truth, predicted, group = raw(seed, 2)
    found = fairness.groups(counted(truth, predicted, group, 2))
    rows = {"y_true": truth, "y_pred": predicted, "sensitive_features": group}
    frame = MetricFrame(
        metrics={
            "accuracy": accuracy_score,
            "tpr": true_positive_rate,
            "fpr": false_positive_rate,
            "selection": selection_rate,
        },
        **rows,
    )
    for name, figures in found["values"].items():
        wanted = frame.by_group.loc[name]
        for rate in ("accuracy", "tpr", "fpr"):
            assert figures[rate] == pytest.approx(wanted[rate]), rate
        assert figures["predicted"][1] == pytest.approx(wanted["selection"])
    assert found["worst"] == frame.by_group["accuracy"].idxmin()
    for name, wanted in (
        ("accuracy", frame.difference()["accuracy"]),
        ("demographic_parity", demographic_parity_difference(**rows)),
        ("equal_opportunity", equal_opportunity_difference(**rows)),
        ("equalized_odds", equalized_odds_difference(**rows)),
    ):
        gap = found["gaps"][name]
        assert gap["value"] == pytest.approx(wanted), name
        assert gap["interval"][0] < gap["value"] < gap["interval"][1]
        assert gap["label"] == (None if name == "accuracy" else 1)


@pytest.mark.parametrize("seed", range(3))
def test_more_labels_equal_the_largest_of_fairlearn_one_against_the_rest(seed: int) -> None:
    truth, predicted, group = raw(seed, 4)
    found = fairness.groups(counted(truth, predicted, group, 4))["gaps"]
    for name, difference in (
        ("demographic_parity", demographic_parity_difference),
        ("equal_opportunity", equal_opportunity_difference),
        ("equalized_odds", equalized_odds_difference),
    ):
        each = [difference(truth == c, predicted == c, sensitive_features=group) for c in range(4)]
        assert found[name]["value"] == pytest.approx(max(each))
        assert found[name]["label"] == int(np.argmax(each))


def test_predicted_distributions_against_scipy() -> None:
    tables = list(counted(*raw(0, 3), 3).values())
    predicted = [t.sum(0) for t in tables]
    kl, absolute = fairness.distribution_gaps(tables)
    assert kl == pytest.approx(max(entropy(p + 0.5, q + 0.5) for p in predicted for q in predicted))
    shares = [p / p.sum() for p in predicted]
    assert absolute == pytest.approx(max(np.abs(p - q).mean() for p in shares for q in shares))
    one_sided = [np.array([[50.0, 0.0], [50.0, 0.0]]), np.array([[0.0, 50.0], [0.0, 50.0]])]
    kl, absolute = fairness.distribution_gaps(one_sided)
    assert absolute == 1.0
    assert 4.0 < kl < math.inf


@pytest.mark.parametrize(("hits", "total"), [(0, 7), (7, 7), (3, 10), (81, 263), (1, 2000)])
def test_wilson_equals_scipy(hits: int, total: int) -> None:
    wanted = binomtest(hits, total).proportion_ci(method="wilson")
    assert wilson(Share(hits, total)) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        # Newcombe (1998), Statistics in Medicine 17, table II, method 10.
        ((56, 70), (48, 80), (0.0524, 0.3339)),
        ((9, 10), (3, 10), (0.1705, 0.8090)),
        ((5, 56), (0, 29), (-0.0381, 0.1926)),
        ((0, 10), (0, 20), (-0.1611, 0.2775)),
        ((10, 10), (0, 20), (0.6791, 1.0000)),
    ],
)
def test_newcombe_equals_the_paper(
    first: tuple[int, int], second: tuple[int, int], wanted: tuple[float, float]
) -> None:
    assert newcombe(Share(*first), Share(*second)) == pytest.approx(wanted, abs=6e-5)


def test_a_wilson_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    for p in (0.1, 0.5, 0.93):
        hits = rng.binomial(80, p, 4000)
        bounds = [wilson(Share(float(k), 80.0)) for k in hits]
        covered = np.mean([low <= p <= high for low, high in bounds])
        assert 0.92 < covered < 0.98


def test_small_groups_are_flagged_and_not_ranked() -> None:
    tables = {
        "large": np.array([[40.0, 10.0], [10.0, 40.0]]),
        "other": np.array([[45.0, 5.0], [15.0, 35.0]]),
        "tiny": np.array([[0.0, 5.0], [5.0, 0.0]]),
    }
    found = fairness.groups(tables)
    assert found["values"]["tiny"]["small"]
    assert found["values"]["tiny"]["accuracy"] == 0.0
    assert found["worst"] == "large"
    assert all("tiny" not in (g["low"], g["high"]) for g in found["gaps"].values())
    # Enough rows, but too few positive ones for a true positive rate.
    tables["other"] = np.array([[80.0, 15.0], [1.0, 4.0]])
    found = fairness.groups(tables)
    assert found["gaps"]["equal_opportunity"] is None
    assert found["gaps"]["equalized_odds"]["rate"] == "fpr"
    alone = fairness.groups({"tiny": tables["tiny"]})
    assert alone["worst"] is None
    assert set(alone["gaps"].values()) == {None}
    assert math.isnan(alone["prediction_kl"])


def test_noisy_counts_below_zero_stay_in_bounds() -> None:
    table = np.array([[60.3, -2.4], [-1.1, 55.9]])
    found = fairness.groups({"a": table, "b": table[::-1]})
    for figures in found["values"].values():
        assert 0.0 <= figures["tpr"] <= 1.0
        assert 0.0 <= figures["accuracy_interval"][0] <= figures["accuracy_interval"][1] <= 1.0
    empty = fairness.groups({"a": np.array([[-1.0, 0.0], [-2.0, 0.0]])})["values"]["a"]
    assert math.isnan(empty["accuracy"])


def test_spread_over_partners() -> None:
    found = spread([0.9, 0.5, 0.7, float("nan")])
    assert found["mean"] == pytest.approx(0.7)
    assert found["std"] == pytest.approx(np.std([0.9, 0.5, 0.7]))
    assert found["worst"] == found["worst_decile"] == 0.5
    assert found["entropy"] == pytest.approx(entropy([0.9, 0.5, 0.7]) / np.log(3))
    assert found["jain"] == pytest.approx(2.1**2 / (3 * (0.81 + 0.25 + 0.49)))
    assert spread(list(np.linspace(0, 1, 20)))["worst_decile"] == pytest.approx(0.5 / 19)
    even = spread([0.6] * 5)
    assert (even["entropy"], even["jain"]) == (pytest.approx(1.0), pytest.approx(1.0))
    one_has_all = spread([1.0, 0.0, 0.0, 0.0])
    assert (one_has_all["entropy"], one_has_all["jain"]) == (0.0, 0.25)
    assert spread([0.5, -0.1])["entropy"] == spread([0.5, 0.0])["entropy"] == 0.0
    assert spread([0.0, 0.0])["jain"] == 1.0
    assert math.isnan(spread([])["jain"])


def test_columns_are_kept_apart() -> None:
    table = np.eye(2)
    found = fairness.by_column({"a=1": table, "a=x=y": table, "b=": table})
    assert {column: sorted(values) for column, values in found.items()} == {
        "a": ["1", "x=y"],
        "b": [""],
    }


def test_a_column_with_an_equals_sign_keeps_its_groups() -> None:
    table = np.eye(2)
    keys = [group_key("a=b", "x"), group_key("a", "b=x"), group_key("50%3D", "=")]
    assert len(set(keys)) == 3
    found = fairness.by_column(dict.fromkeys(keys, table))
    assert {column: list(values) for column, values in found.items()} == {
        "a=b": ["x"],
        "a": ["b=x"],
        "50%3D": ["="],
    }
