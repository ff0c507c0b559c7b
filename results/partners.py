"""Figures of single partners and of all of them together, from the counts they report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import median_low

import numpy as np

from common import metrics
from common.messages import Report
from common.tasks import LOSS_BOUND

# How much one partner may count for in figures of all partners together; `pooled` says why.
MOST_OF_MEDIAN = 3.0
MOST_NOISE_OF_MEDIAN = 10.0


def partner_accuracy(report: Report) -> float:
    """Accuracy by the counts that a partner released; nan without any."""
    return metrics.accuracy(np.asarray(report.confusion))


def partner_accuracy_error(report: Report) -> float:
    """Standard error of `partner_accuracy` by the noise on the counts, at most 0.5."""
    error = metrics.accuracy_error(np.asarray(report.confusion), report.count_noise)
    return error if math.isnan(error) else min(error, 0.5)


def pooled(reports: Sequence[Report]) -> list[Report]:
    """The reports, scaled as they enter figures of all partners together.

    Without public rows these figures are sums of counts that partners report, and a partner that
    reports large counts would decide them.  So no partner counts for more than `MOST_OF_MEDIAN`
    times the median partner (by the sum of its counts): the counts, sums and noise of a larger one
    are scaled down.  A partner whose noise is above `MOST_NOISE_OF_MEDIAN` times the median noise
    counts for nothing: its own counts are lost in it, and it would hide those of the others.
    Medians are the lower ones, so with two partners the smaller sets the scale.  Fewer than half of
    the partners can move a median only within the range of the others.
    """
    counted = [r for r in reports if np.any(r.confusion)]
    if not counted:
        return list(reports)
    most = MOST_OF_MEDIAN * median_low([_rows(r) for r in counted])
    most_noise = MOST_NOISE_OF_MEDIAN * median_low([r.count_noise for r in counted])
    return [_scaled(r, _share(r, most, most_noise)) for r in reports]


def _rows(report: Report) -> float:
    return float(np.sum(report.confusion))


def _share(report: Report, most: float, most_noise: float) -> float:
    if report.count_noise > most_noise:
        return 0.0
    rows = _rows(report)
    # Where noise takes the median below 0 there is nothing to measure by.
    return 1.0 if rows <= most or most <= 0 else most / rows


def _scaled(report: Report, share: float) -> Report:
    if share == 1.0:
        return report
    return replace(
        report,
        confusion=(share * np.asarray(report.confusion)).tolist(),
        groups={k: (share * np.asarray(table)).tolist() for k, table in report.groups.items()},
        sums=[[share * number for number in row] for row in report.sums],
        count_noise=share * report.count_noise,
    )


def loss_error(report: Report, loss_bound: float = LOSS_BOUND) -> float:
    """Standard error of a report's loss by noise (delta method).

    The sum of the losses carries noise of `loss_bound` times that of a count, and the number of
    rows, the sum of all counts, carries that of all counts.
    """
    counts = np.asarray(report.confusion)
    total = float(counts.sum())
    if report.count_noise == 0 or total <= 0:
        return 0.0 if report.count_noise == 0 else math.nan
    spread = math.hypot(loss_bound, report.loss * math.sqrt(counts.size))
    # The standard deviation of a number in [0, loss_bound] is at most half of it.
    return min(report.count_noise * spread / total, loss_bound / 2)


def partner_figures(reports: Sequence[Report]) -> dict[str, float | None]:
    """Mean, spread and minimum of the partners' accuracies, with standard errors by noise.

    All are None where no partner measured anything.
    """
    pairs = [(partner_accuracy(r), partner_accuracy_error(r)) for r in reports]
    pairs = [(score, error) for score, error in pairs if math.isfinite(score)]
    names = ("mean_partner_accuracy", "partner_accuracy_std", "worst_partner_accuracy")
    errors = ("mean_partner_accuracy_error", "worst_partner_accuracy_error")
    if not pairs:
        return dict.fromkeys((*names, *errors))
    scores = [score for score, _ in pairs]
    worst = min(pairs)
    return {
        "mean_partner_accuracy": float(np.mean(scores)),
        "mean_partner_accuracy_error": finite(metrics.mean_error([e for _, e in pairs])),
        "partner_accuracy_std": float(np.std(scores)),
        "worst_partner_accuracy": worst[0],
        "worst_partner_accuracy_error": finite(worst[1]),
    }


def finite(value: float | None) -> float | None:
    """The value, or None where there is no finite one: JSON has no NaN."""
    return None if value is None or not math.isfinite(value) else float(value)
