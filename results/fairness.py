"""Fairness over partners and groups, from counts, with intervals.

Every figure of a group follows from its confusion matrix, so that partners need to release counts
only.  Negative counts, which noise can cause, are taken as zero.

Intervals cover 95 % and the sampling of rows alone, not the noise that privacy adds to counts:
Wilson's score interval for a share, and Newcombe's hybrid score interval (1998, method 10) for a
difference of two shares.  A gap is the largest difference between any two groups, so with more than
two groups the gap and its interval are biased upwards.

A share of fewer than `MINIMUM` rows is reported and flagged; it is not ranked and not compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from common.groups import split_group_key
from common.metrics import Counts, accuracy, rates, share_error

MINIMUM = 30
# The 97.5 % quantile of the normal distribution.
Z = 1.959963984540054
Distribution = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Share:
    """`hits` of `total` rows; noisy counts are not whole numbers.

    Attributes:
        error: standard error of the value by the noise on counts.
    """

    hits: float
    total: float
    error: float = 0.0

    @property
    def value(self) -> float:
        """hits / total; nan without rows."""
        return self.hits / self.total if self.total > 0 else math.nan

    @property
    def small(self) -> bool:
        """Whether there are too few rows to compare this share with another."""
        return self.total < MINIMUM


def wilson(share: Share, z: float = Z) -> tuple[float, float]:
    """Wilson's score interval (1927) of a share; (nan, nan) without rows."""
    n = share.total
    if n <= 0:
        return math.nan, math.nan
    p, square = share.value, z * z / n
    centre = (p + square / 2) / (1 + square)
    half = z / (1 + square) * math.sqrt(p * (1 - p) / n + square / (4 * n))
    # At the ends the bound is exact, which rounding would miss.
    low = 0.0 if share.hits <= 0 else max(0.0, centre - half)
    high = 1.0 if share.hits >= n else min(1.0, centre + half)
    return low, high


def newcombe(first: Share, second: Share, z: float = Z) -> tuple[float, float]:
    """Newcombe's interval for first - second: both Wilson intervals' halves, added in squares."""
    low1, high1 = wilson(first, z)
    low2, high2 = wilson(second, z)
    p1, p2 = first.value, second.value
    difference = p1 - p2
    return (
        difference - math.hypot(p1 - low1, high2 - p2),
        difference + math.hypot(high1 - p1, p2 - low2),
    )


def spread(values: Sequence[float]) -> dict[str, float]:
    """How evenly a figure is spread over partners.

    Args:
        values: the figure of each partner, such as the accuracy, in [0, 1]; nan is left out.

    Returns:
        `mean`, `std`, `worst`; `worst_decile`, the mean over the worst 10 % and at least one
        partner (Li et al. 2020, q-FFL); `entropy` of the figures' shares of their sum, divided by
        its maximum log n; and `jain`, Jain's index (Σx)² / (n Σx²), from 1/n (one partner has all)
        to 1.  Entropy and index are 1 for equal figures.  All are nan where nobody has a figure.
    """
    known = np.sort([v for v in values if math.isfinite(v)])
    names = ("mean", "std", "worst", "worst_decile", "entropy", "jain")
    if not len(known):
        return dict.fromkeys(names, math.nan)
    # Noise can push an accuracy below zero, where a share of the sum has no meaning.
    positive = known.clip(min=0.0)
    total = float(positive.sum())
    shares = positive[positive > 0] / total
    even = len(known) == 1 or total <= 0
    found = (
        float(known.mean()),
        float(known.std()),
        float(known[0]),
        float(known[: math.ceil(len(known) / 10)].mean()),
        1.0 if even else float(-(shares * np.log(shares)).sum() / math.log(len(known))),
        1.0 if even else total**2 / (len(known) * float((positive**2).sum())),
    )
    return dict(zip(names, found, strict=True))


@dataclass(frozen=True)
class Gap:
    """The largest difference between two groups: `high` minus `low` in `rate`.

    Attributes:
        label: the class that is taken against all others; None for accuracy, which has none.
        error: standard error of the value by the noise on counts, for these two groups.
    """

    value: float
    interval: tuple[float, float]
    high: str
    low: str
    label: int | None
    rate: str
    error: float = 0.0


def groups(counts: Mapping[str, Counts], noise: float = 0.0) -> dict[str, Any]:
    """The figures of one column's groups, as plain values for results.json.

    Args:
        counts: the confusion matrix [true, predicted] of each group, by the group's value.
        noise: the standard deviation of the noise on each count.
    """
    tables = {name: np.maximum(table, 0.0) for name, table in sorted(counts.items())}
    shares = {name: _shares(table, noise) for name, table in tables.items()}
    large = {name: s for name, s in shares.items() if not s["accuracy"][0].small}
    parity = _gap(large, "selection")
    opportunity = _gap(large, "tpr")
    odds = [gap for gap in (opportunity, _gap(large, "fpr")) if gap is not None]
    ranked = sorted(large, key=lambda name: large[name]["accuracy"][0].value)
    return {
        "values": {name: _described(tables[name], shares[name]) for name in tables},
        "worst": ranked[0] if ranked else None,
        "gaps": {
            "accuracy": _plain(_gap(large, "accuracy")),
            "demographic_parity": _plain(parity),
            "equal_opportunity": _plain(opportunity),
            "equalized_odds": _plain(max(odds, key=lambda gap: gap.value, default=None)),
        },
        **_distances([tables[name] for name in large]),
    }


def by_column(counts: Mapping[str, Counts]) -> dict[str, dict[str, Counts]]:
    """Counts by group key as {column: {value: counts}}."""
    found: dict[str, dict[str, Counts]] = {}
    for name, table in counts.items():
        column, value = split_group_key(name)
        found.setdefault(column, {})[value] = table
    return found


def distribution_gaps(tables: Sequence[Counts]) -> tuple[float, float]:
    """The largest distances between two groups' distributions of the predicted label.

    Args:
        tables: the confusion matrix [true, predicted] of each group.

    Returns:
        The Kullback-Leibler divergence in nats, in its larger direction (with half a row added to
        every label, so that a label that is never predicted does not make it infinite), and the
        mean absolute difference over labels; (nan, nan) with fewer than two groups.
    """
    if len(tables) < 2:
        return math.nan, math.nan
    smooth = [_distribution(table.sum(0) + 0.5) for table in tables]
    exact = [_distribution(table.sum(0)) for table in tables]
    kl = max(float((p * np.log(p / q)).sum()) for p in smooth for q in smooth)
    absolute = max(float(np.abs(p - q).mean()) for p in exact for q in exact)
    return max(kl, 0.0), absolute


def _distribution(counts: npt.NDArray[np.float64]) -> Distribution:
    found: Distribution = counts / counts.sum()
    return found


def _distances(tables: Sequence[Counts]) -> dict[str, float]:
    kl, absolute = distribution_gaps(tables)
    return {"prediction_kl": kl, "prediction_absolute": absolute}


def _shares(table: Counts, noise: float) -> dict[str, list[Share]]:
    """The rates of a group: one share per label, and of two labels that of label 1 alone."""
    total = float(table.sum())
    labels = [1] if len(table) == 2 else list(range(len(table)))
    positives = [float(table[c].sum()) for c in labels]
    size = len(table)

    def share(hits: float, total: float, cells: int, others: int) -> Share:
        value = hits / total if total > 0 else math.nan
        return Share(hits, total, share_error(value, total, cells, others, noise))

    return {
        "accuracy": [share(float(np.trace(table)), total, size, size * size - size)],
        "selection": [
            share(float(table[:, c].sum()), total, size, size * size - size) for c in labels
        ],
        "tpr": [
            share(float(table[c, c]), n, 1, size - 1)
            for c, n in zip(labels, positives, strict=True)
        ],
        "fpr": [
            share(float(table[:, c].sum() - table[c, c]), total - n, size - 1, (size - 1) ** 2)
            for c, n in zip(labels, positives, strict=True)
        ],
    }


def _gap(shares: Mapping[str, Mapping[str, Sequence[Share]]], rate: str) -> Gap | None:
    """The largest difference in `rate` over labels; None where no two groups can be compared."""
    found: list[Gap] = []
    for label in range(max((len(s[rate]) for s in shares.values()), default=0)):
        usable = {name: s[rate][label] for name, s in shares.items() if not s[rate][label].small}
        if len(usable) < 2:
            continue
        order = sorted(usable, key=lambda name: usable[name].value)
        low, high = usable[order[0]], usable[order[-1]]
        labels = len(next(iter(shares.values()))["tpr"])
        found.append(
            Gap(
                high.value - low.value,
                newcombe(high, low),
                order[-1],
                order[0],
                None if rate == "accuracy" else label if labels > 1 else 1,
                rate,
                math.hypot(high.error, low.error),
            )
        )
    return max(found, key=lambda gap: gap.value, default=None)


def _described(table: Counts, shares: Mapping[str, Sequence[Share]]) -> dict[str, Any]:
    """A group's figures; intervals of tpr and fpr where they are shares of rows (two labels)."""
    tpr, fpr = rates(table)
    figures: dict[str, Any] = {
        "n": float(table.sum()),
        "small": shares["accuracy"][0].small,
        "accuracy": accuracy(table),
        "accuracy_interval": list(wilson(shares["accuracy"][0])),
        "accuracy_error": shares["accuracy"][0].error,
        "tpr": tpr,
        "fpr": fpr,
        "predicted": (table.sum(0) / table.sum()).tolist() if table.sum() > 0 else [],
    }
    if len(table) == 2:
        for rate in ("tpr", "fpr", "selection"):
            figures[f"{rate}_error"] = shares[rate][0].error
            figures[f"{rate}_interval"] = list(wilson(shares[rate][0]))
            figures[f"{rate}_small"] = shares[rate][0].small
    return figures


def _plain(gap: Gap | None) -> dict[str, Any] | None:
    if gap is None:
        return None
    return {**asdict(gap), "interval": list(gap.interval)}
