"""A partner's report, held against what is public: the run's settings.

A partner may lie about its own rows, and nothing here can tell.  What is refused is what no honest
partner of this run can report, so that a lie stays within the range of an honest report; what a
report counts for beside the others is in `results.partners.pooled`.
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

# No partner holds more rows (or, where words are counted, words) than this.
MOST_ROWS = 1e9
MOST_GROUPS = 1000
# Normal noise is beyond this many standard deviations once in 10^15.
SIGMAS = 8.0
# A run's own epsilon is solved for its rounds; one that a crash repeats is counted again, so an
# honest ledger may hold more for the run, but not many times more.
MOST_OF_EPSILON = 10.0
# The noise on the number of training rows is 30 (client/metrics.py); no run asks for this much.
MOST_NOISE = 1e6
ROUNDING = 1e-6


@dataclass(frozen=True)
class Expected:
    """What a report of a run can hold, by the run's settings.

    Attributes:
        classes: rows and columns of a table of counts.
        sums: shape of the task's own sums.
        loss_bound: a loss is in [0, loss_bound].
        columns: group columns that the run asks for.
        private: whether updates carry noise; `exact`: whether counts carry none.
        epsilon, delta: asked for; 0 without privacy.
        batch: fewest training rows that a partner can have.
        trained: most examples that one message trains on (an expectation).
        seconds: longest time that a message can take.
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
        """Those of a run."""
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

    The loss is nan where the counts, with their noise, add up to nothing.

    Raises MessageError with the reason when it holds none, another partner's, or what no partner of
    the run can report.
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
    """Each number by itself.  Comparisons are written so that NaN fails them."""
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
            raise MessageError(f"the reply's {name} is not between {low:g} and {high:g}")
    if report.delta not in (0.0, expected.delta):
        raise MessageError(f"the reply's delta is not the run's, {expected.delta:g}")


def _check_tables(report: Report, expected: Expected) -> None:
    """Shape and range of every table of counts."""
    if len(report.groups) > MOST_GROUPS:
        raise MessageError(f"the reply has more than {MOST_GROUPS} groups")
    size = expected.classes
    low = -SIGMAS * report.count_noise
    for table in (report.confusion, *report.groups.values()):
        if len(table) != size or any(len(row) != size for row in table):
            raise MessageError(f"the reply's counts are not tables of {size} rows and columns")
        if not all(low <= count <= MOST_ROWS for row in table for count in row):
            raise MessageError(
                f"the reply's counts are not between {low:g} and {MOST_ROWS:g} (their noise may "
                "take them below 0)"
            )
    if not expected.exact and report.count_noise == 0 and np.any(report.confusion):
        raise MessageError("the reply's counts carry no noise, which the run asks for")
    if float(np.sum(report.confusion)) > MOST_ROWS:
        raise MessageError(f"the reply's counts add up to more than {MOST_ROWS:g}")


def _check_groups(report: Report, expected: Expected) -> None:
    """Groups are of the columns that the run asks for, and no column counts a row twice."""
    total = np.asarray(report.confusion)
    for column, tables in by_column(
        {name: np.asarray(table) for name, table in report.groups.items()}
    ).items():
        if column not in expected.columns:
            raise MessageError("the reply has groups of a column that the run does not ask for")
        cells = (len(tables) + 1) * total.size
        room = ROUNDING * max(1.0, float(total.sum()))
        room += SIGMAS * report.count_noise * math.sqrt(cells)
        if sum(float(table.sum()) for table in tables.values()) > float(total.sum()) + room:
            raise MessageError(f"the reply's groups of {column} count more rows than there are")


def _check_sums(report: Report, expected: Expected) -> None:
    """Every sum is of rows (or words) that were counted, each adding between 0 and 1."""
    rows, columns = expected.sums
    if len(report.sums) != rows or any(len(row) != columns for row in report.sums):
        raise MessageError(f"the reply's sums are not {rows} rows of {columns} numbers")
    most = float(np.sum(report.confusion)) * (1 + ROUNDING) + ROUNDING
    if not all(0 <= number <= most for row in report.sums for number in row):
        raise MessageError("the reply's sums are negative or more than its counts")


def _with_loss(report: Report, expected: Expected) -> Report:
    """The report with a loss that its counts bear out."""
    if not np.any(report.confusion):
        if not math.isnan(report.loss):
            raise MessageError("the reply has a loss and no counts")
        return report
    if not (math.isnan(report.loss) or 0 <= report.loss <= expected.loss_bound * (1 + ROUNDING)):
        raise MessageError(f"the reply's loss is not between 0 and {expected.loss_bound:g}")
    if float(np.sum(report.confusion)) <= 0:
        return replace(report, loss=math.nan)
    return report


def reply_metrics(report: Report) -> dict[str, float]:
    """The numbers of a report that fair weights may use.

    A partner without validation rows has neither loss nor accuracy.
    """
    told = sum(map(sum, report.confusion)) > 0
    measured = {"loss": report.loss, "accuracy": partner_accuracy(report)} if told else {}
    if (gap := _largest_gap(report)) is not None:
        measured["gap"] = gap
    return {**measured, "examples": report.examples}


def _largest_gap(report: Report) -> float | None:
    """Equalised-odds difference between a partner's groups; None where it has not two to compare.

    Of several columns of groups, the one that differs most.
    """
    tables = {name: np.asarray(counts) for name, counts in report.groups.items()}
    found = [gaps(list(t.values()))["equalized_odds"] for t in by_column(tables).values()]
    return max((gap for gap in found if math.isfinite(gap)), default=None)
