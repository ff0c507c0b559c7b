"""Classification metrics from counts alone, so that they also work on noisy counts.

Noise can make counts negative.  They count as zero here, so that every share lies in [0, 1]; that
is post-processing, and biases small counts upwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.float64]


def proper(counts: Counts) -> Counts:
    """Counts as they can be: none below zero."""
    return np.maximum(counts, 0.0)


def share_error(share: float, total: float, hits: int, others: int, noise: float) -> float:
    """Standard error that noise on counts puts on a share.

    `share` is the sum of `hits` cells over `total`, the sum of these and `others` more, with
    independent noise of standard deviation `noise` on every cell (delta method: the noise is
    small against `total`).  nan without rows.
    """
    if not total > 0:
        return 0.0 if noise == 0 else math.nan
    return noise * math.sqrt(hits * (1 - share) ** 2 + others * share**2) / total


def accuracy_error(confusion: Counts, noise: float) -> float:
    """Standard error that noise on every count puts on the accuracy; nan without rows."""
    classes, table = len(confusion), proper(confusion)
    return share_error(
        accuracy(table), float(table.sum()), classes, classes * classes - classes, noise
    )


def rates_error(confusion: Counts, noise: float) -> tuple[float, float]:
    """Standard errors that noise on every count puts on the two rates of `rates`.

    Beyond two classes the classes' errors are averaged in squares as if independent.
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
    """Standard error of the mean of independent figures; nan without any."""
    return math.sqrt(sum(e * e for e in errors)) / len(errors) if errors else math.nan


def accuracy(confusion: Counts) -> float:
    """Share of rows on the diagonal of confusion [true, predicted]; nan without rows."""
    confusion = proper(confusion)
    total = confusion.sum()
    # Sums of noisy counts round, to a hair above 1.
    return min(float(np.trace(confusion) / total), 1.0) if total > 0 else float("nan")


def macro_f1(confusion: Counts) -> float:
    """Unweighted mean F1 over the classes that occur (as true or predicted label)."""
    confusion = proper(confusion)
    hits = np.diag(confusion)
    denominator = confusion.sum(0) + confusion.sum(1)
    occurs = denominator > 0
    if not occurs.any():
        return float("nan")
    return float(np.mean(2 * hits[occurs] / denominator[occurs]))


def rates(confusion: Counts) -> tuple[float, float]:
    """True and false positive rate with class 1 as the positive one (macro one-vs-rest if more)."""
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
    """Fairness differences between groups, with fairlearn's definitions, from confusion counts.

    Demographic parity: range of the share predicted positive.  Equal opportunity: range of TPR.
    Equalised odds: the larger of the ranges of TPR and FPR.  For more than two classes each is
    the largest over classes taken one against the rest.  nan with fewer than two groups.
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
