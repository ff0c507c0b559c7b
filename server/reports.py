"""Checks of a partner's report against what is public: the run's settings.

A partner can lie about its own rows without being found out here.  These checks refuse what no
honest partner of the run could report, so that a lie stays within the range of honest reports;
`results.partners.pooled` bounds how much one report weighs in common figures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from common.config import Config
from common.messages import MessageError, Refusal, Report
from common.metrics import gaps
from common.tasks import LOSS_BOUND
from results.fairness import by_column
from results.partners import partner_accuracy
from server.exchange import Answer

# The most rows that a partner can have (or words, where words are counted).
MOST_ROWS = 1e9
MOST_GROUPS = 1000
# Normal noise exceeds this many standard deviations with a probability of 10^-15.
SIGMAS = 8.0
# The noise is solved so that a run spends its epsilon over its rounds.  A round that a crash
# repeats is counted again, so an honest ledger can hold more for the run, but not many times more.
MOST_OF_EPSILON = 10.0
# The noise on the number of training rows is 30 (client/metrics.py); no run needs this much.
MOST_NOISE = 1e6
ROUNDING = 1e-6


@dataclass(frozen=True)
class Expected:
    """The ranges of an honest report, by the run's settings.

    Attributes:
        classes: a confusion matrix has shape [classes, classes].
        sums: shape of the task's own sums.
        loss_bound: a loss is in [0, loss_bound].
        columns: the group columns that the run measures.
        private: whether updates carry noise.
        exact: whether counts carry no noise.
        epsilon, delta: the run's settings; 0 without privacy.
        batch: the fewest training examples that a partner can have.
        trained: the most examples that one message trains on (an expectation).
        seconds: the longest time that a message can take.
    """

    classes: int
    sums: tuple[int, int] = (0, 0)
    loss_bound: float = LOSS_BOUND
    columns: tuple[str, ...] = ()
    private: bool = True
    exact: bool = True
    epsilon: float = 8.0
    delta: float = 1e-5
    batch: float = 1.0
    trained: float = MOST_ROWS
    seconds: float = 7200.0

    @classmethod
    def of(cls, config: Config) -> Expected:
        """The ranges for a run."""
        exact = not config.private_metrics
        return cls(
            classes=config.about.confusion_size(len(config.outputs)),
            sums=config.about.statistics_shape(config.data) if exact else (0, 0),
            loss_bound=config.about.loss_bound,
            columns=tuple(config.data.columns.groups),
            private=config.private,
            exact=exact,
            epsilon=max(config.privacy.epsilon, config.metrics_epsilon) if config.private else 0.0,
            delta=config.privacy.delta if config.private else 0.0,
            batch=float(config.train.batch_size),
            trained=float(config.train.batch_size * config.train.local_steps),
            # A message expires at twice the deadline.
            seconds=2 * config.run.deadline_seconds,
        )


def read_report(answer: Answer, expected: Expected) -> Report:
    """The report in a partner's answer.

    Returns:
        The report.  Its loss is nan where the counts, with their noise, do not add up to a positive
        number.

    Raises:
        MessageError: the answer is a refusal or no report, the report is another partner's, or it
            is outside the range of honest reports.
    """
    body = answer.body
    if isinstance(body, Refusal):
        raise MessageError(body.reason)
    if not isinstance(body, Report):
        raise MessageError("the reply is not a report")
    if body.partner != answer.partner:
        raise MessageError("the reply carries another partner's name")
    _check_numbers(body, expected)
    _check_tables(body, expected)
    _check_groups(body, expected)
    _check_sums(body, expected)
    return _with_loss(body, expected)


def _check_numbers(report: Report, expected: Expected) -> None:
    """Check each number on its own; every comparison is written so that NaN fails it."""
    seconds = (0.0, expected.seconds)
    ranges = {
        "examples": (expected.batch, MOST_ROWS),
        "epsilon": (0.0, MOST_OF_EPSILON * expected.epsilon),
        "trained_examples": (0.0, expected.trained * (1 + ROUNDING)),
        "train_seconds": seconds,
        "frozen_seconds": seconds,
        "message_seconds": seconds,
        "count_noise": (0.0, 0.0 if expected.exact else MOST_NOISE),
        "examples_noise": (0.0, 0.0 if expected.exact else MOST_NOISE),
    }
    for name, (low, high) in ranges.items():
        if not low <= getattr(report, name) <= high:
            raise MessageError(f"the report's {name} must be between {low:g} and {high:g}")
    if report.delta not in (0.0, expected.delta):
        raise MessageError(f"the report's delta must be the run's, {expected.delta:g}")


def _check_tables(report: Report, expected: Expected) -> None:
    """Check shape and range of every confusion matrix."""
    if len(report.groups) > MOST_GROUPS:
        raise MessageError(f"the report must have at most {MOST_GROUPS} groups")
    size = expected.classes
    low = -SIGMAS * report.count_noise
    for table in (report.confusion, *report.groups.values()):
        if len(table) != size or any(len(row) != size for row in table):
            raise MessageError(f"the confusion matrix must have shape [{size}, {size}]")
        if not all(low <= count <= MOST_ROWS for row in table for count in row):
            raise MessageError(
                f"the report's counts must be between {low:g} (noise can make them negative) and "
                f"{MOST_ROWS:g}"
            )
    if not expected.exact and report.count_noise == 0 and np.any(report.confusion):
        raise MessageError("the report's counts must carry noise: privacy.metrics=private")
    if float(np.sum(report.confusion)) > MOST_ROWS:
        raise MessageError(f"the report's counts must add up to at most {MOST_ROWS:g}")


def _check_groups(report: Report, expected: Expected) -> None:
    """Check that groups are of the run's columns, and that no column counts a row twice."""
    total = np.asarray(report.confusion)
    for column, tables in by_column(
        {name: np.asarray(table) for name, table in report.groups.items()}
    ).items():
        if column not in expected.columns:
            raise MessageError("the report has groups of a column that data.columns.groups lacks")
        cells = (len(tables) + 1) * total.size
        room = ROUNDING * max(1.0, float(total.sum()))
        room += SIGMAS * report.count_noise * math.sqrt(cells)
        if sum(float(table.sum()) for table in tables.values()) > float(total.sum()) + room:
            raise MessageError(f"the groups of {column} count more rows than the report has")


def _check_sums(report: Report, expected: Expected) -> None:
    """Check the task's sums, to which each counted row (or word) adds between 0 and 1."""
    rows, columns = expected.sums
    if len(report.sums) != rows or any(len(row) != columns for row in report.sums):
        raise MessageError(f"the report's sums must have shape [{rows}, {columns}]")
    most = float(np.sum(report.confusion)) * (1 + ROUNDING) + ROUNDING
    if not all(0 <= number <= most for row in report.sums for number in row):
        raise MessageError("the report's sums must be between 0 and the number of its counts")


def _with_loss(report: Report, expected: Expected) -> Report:
    """The report, with a loss only where its counts are positive."""
    if not np.any(report.confusion):
        if not math.isnan(report.loss):
            raise MessageError("the report has a loss, but no counts")
        return report
    if not (math.isnan(report.loss) or 0 <= report.loss <= expected.loss_bound * (1 + ROUNDING)):
        raise MessageError(f"the report's loss must be between 0 and {expected.loss_bound:g}")
    if float(np.sum(report.confusion)) <= 0:
        return replace(report, loss=math.nan)
    return report


def reply_metrics(report: Report) -> dict[str, float]:
    """The metrics of a report that fair weights can use, by name.

    A partner without validation rows has neither loss nor accuracy.
    """
    counted = sum(map(sum, report.confusion)) > 0
    measured = {"loss": report.loss, "accuracy": partner_accuracy(report)} if counted else {}
    if (gap := _largest_gap(report)) is not None:
        measured["gap"] = gap
    return {**measured, "examples": report.examples}


def _largest_gap(report: Report) -> float | None:
    """The equalised-odds difference between a partner's groups; None with fewer than two groups.

    With several group columns, the largest difference.
    """
    tables = {name: np.asarray(counts) for name, counts in report.groups.items()}
    found = [gaps(list(t.values()))["equalized_odds"] for t in by_column(tables).values()]
    return max((gap for gap in found if math.isfinite(gap)), default=None)
