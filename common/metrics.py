"""Classification metrics from counts alone, so that they also work on noisy counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.float64]


def accuracy(confusion: Counts) -> float:
    """Share of rows on the diagonal of confusion [true, predicted]; nan without rows."""
    total = confusion.sum()
    return float(np.trace(confusion) / total) if total > 0 else float("nan")


def macro_f1(confusion: Counts) -> float:
    """Unweighted mean F1 over the classes that occur (as true or predicted label)."""
    hits = np.diag(confusion)
    denominator = confusion.sum(0) + confusion.sum(1)
    occurs = denominator > 0
    if not occurs.any():
        return float("nan")
    return float(np.mean(2 * hits[occurs] / denominator[occurs]))


def rates(confusion: Counts) -> tuple[float, float]:
    """True and false positive rate with class 1 as the positive one (macro one-vs-rest if more)."""
    classes = range(1, 2) if len(confusion) == 2 else range(len(confusion))
    tpr, fpr = [], []
    for c in classes:
        positives = confusion[c].sum()
        negatives = confusion.sum() - positives
        if positives > 0:
            tpr.append(confusion[c, c] / positives)
        if negatives > 0:
            fpr.append((confusion[:, c].sum() - confusion[c, c]) / negatives)
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
    usable = [g for g in groups if g.sum() > 0]
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
