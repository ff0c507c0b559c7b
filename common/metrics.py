"""Classification metrics from counts alone, so that they also work on noisy counts.

Noise can make counts negative.  Here they count as zero, so that every share is in [0, 1].  That is
post-processing, and biases small counts upwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.float64]


def proper(counts: Counts) -> Counts:
    """Counts with negative ones set to zero."""
    return np.maximum(counts, 0.0)


def share_error(share: float, total: float, hits: int, others: int, noise: float) -> float:
    """Standard error of a share that is computed from noisy counts.

    Delta method: the noise must be small compared with `total`.

    Args:
        share: The sum of `hits` cells, divided by `total`.
        total: The sum of these and of `others` further cells.
        hits: The number of cells in the numerator.
        others: The number of further cells in the denominator.
        noise: Standard deviation of the independent noise on every cell.

    Returns:
        The standard error; NaN where there are noisy counts of nothing.
    """
    if not total > 0:
        return 0.0 if noise == 0 else math.nan
    return noise * math.sqrt(hits * (1 - share) ** 2 + others * share**2) / total


def accuracy_error(confusion: Counts, noise: float) -> float:
    """Standard error of the accuracy due to noise on every count; NaN without examples."""
    classes, table = len(confusion), proper(confusion)
    return share_error(
        accuracy(table), float(table.sum()), classes, classes * classes - classes, noise
    )


def rates_error(confusion: Counts, noise: float) -> tuple[float, float]:
    """Standard errors of the two rates of `rates` due to noise on every count.

    With more than two classes the errors of the classes are combined as if independent.
    """
    table = proper(confusion)
    size = len(table)
    tpr, fpr = [], []
    for c in range(1, 2) if size == 2 else range(size):
        positives = float(table[c].sum())
        negatives = float(table.sum()) - positives
        if positives > 0:
            tpr.append(share_error(table[c, c] / positives, positives, 1, size - 1, noise))
        if negatives > 0:
            false = float(table[:, c].sum() - table[c, c])
            fpr.append(share_error(false / negatives, negatives, size - 1, (size - 1) ** 2, noise))
    return mean_error(tpr), mean_error(fpr)


def mean_error(errors: Sequence[float]) -> float:
    """Standard error of the mean of independent values; NaN without any."""
    return math.sqrt(sum(e * e for e in errors)) / len(errors) if errors else math.nan


def accuracy(confusion: Counts) -> float:
    """The share of counts on the diagonal of confusion [true, predicted]; NaN without counts."""
    confusion = proper(confusion)
    total = confusion.sum()
    # Rounding of noisy sums can give slightly more than 1.
    return min(float(np.trace(confusion) / total), 1.0) if total > 0 else float("nan")


def macro_f1(confusion: Counts) -> float:
    """Unweighted mean F1 over the classes that occur as a true or a predicted label."""
    confusion = proper(confusion)
    hits = np.diag(confusion)
    denominator = confusion.sum(0) + confusion.sum(1)
    occurs = denominator > 0
    if not occurs.any():
        return float("nan")
    return float(np.mean(2 * hits[occurs] / denominator[occurs]))


def rates(confusion: Counts) -> tuple[float, float]:
    """True and false positive rates of class 1; beyond two classes, means of one-versus-rest."""
    confusion = proper(confusion)
    classes = range(1, 2) if len(confusion) == 2 else range(len(confusion))
    tpr, fpr = [], []
    for c in classes:
        positives = confusion[c].sum()
        negatives = confusion.sum() - positives
        if positives > 0:
            tpr.append(min(confusion[c, c] / positives, 1.0))
        if negatives > 0:
            fpr.append(min((confusion[:, c].sum() - confusion[c, c]) / negatives, 1.0))
    return (
        float(np.mean(tpr)) if tpr else float("nan"),
        float(np.mean(fpr)) if fpr else float("nan"),
    )


def gaps(groups: Sequence[Counts]) -> dict[str, float]:
    """Fairness differences between groups, as fairlearn defines them, from confusion matrices.

    Demographic parity is the range of the share predicted positive, equal opportunity the range of
    the true positive rate, equalised odds the larger of the ranges of true and false positive
    rates.  With more than two classes each is the largest over one-versus-rest comparisons.  All
    are NaN with fewer than two groups.
    """
    usable = [table for g in groups if (table := proper(g)).sum() > 0]
    if len(usable) < 2:
        return dict.fromkeys(
            ("demographic_parity", "equal_opportunity", "equalized_odds"), float("nan")
        )
    classes = [1] if len(usable[0]) == 2 else list(range(len(usable[0])))
    parity, opportunity, odds = [0.0], [0.0], [0.0]
    for c in classes:
        selected = [g[:, c].sum() / g.sum() for g in usable]
        tpr = [g[c, c] / g[c].sum() for g in usable if g[c].sum() > 0]
        fpr = [
            (g[:, c].sum() - g[c, c]) / (g.sum() - g[c].sum())
            for g in usable
            if g.sum() > g[c].sum()
        ]
        spread = [float(np.ptp(x)) if len(x) > 1 else 0.0 for x in (selected, tpr, fpr)]
        parity.append(spread[0])
        opportunity.append(spread[1])
        odds.append(max(spread[1:]))
    return {
        "demographic_parity": max(parity),
        "equal_opportunity": max(opportunity),
        "equalized_odds": max(odds),
    }
