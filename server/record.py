"""What the history keeps of a round."""

from __future__ import annotations

from collections.abc import Sequence

from common.config import Config
from common.evaluation import Evaluation
from results.history import History, RoundRecord
from server.collect import Collected
from strategies.records import Decision


def round_record(
    number: int,
    history: History,
    collected: Collected,
    decisions: Sequence[Decision],
    test: Evaluation | None,
    config: Config,
) -> RoundRecord:
    """The record of a round.

    Args:
        number: the round, from 1.
        history: the rounds before it.
        collected: the round's replies.
        decisions: all decisions of the round.
        test: the server's measurement of the model that the round produced, where there is one.
        config: the run, whose task has figures of its own.
    """
    # Partners that were not asked in this round keep what they have spent.
    spent = [record.epsilon_max for record in history.rounds[-1:]]
    spent += [report.epsilon for report in collected.reports]
    record = RoundRecord(
        round=number,
        epsilon_max=max(spent, default=0.0),
        replies=len(collected.cohort.partners),
        refused=sum(d.outcome == "refused" for d in decisions),
        missing=collected.missing,
    )
    if test is not None:
        record.accuracy, record.loss = test.accuracy, test.loss
        record.figures = config.about.round_figures(test.measured, config.data)
    return record


def add_round(
    history: History,
    record: RoundRecord,
    collected: Collected,
    decisions: Sequence[Decision],
    bytes_down: int,
    loss_bound: float,
) -> None:
    """Add a round to `history`, in place.

    Args:
        bytes_down: parameters that each partner was sent, in bytes.
        loss_bound: the largest loss of a row (`Task.loss_bound`).
    """
    if history.rounds:
        # Partners measure the model that they get: that of the round before.
        history.rounds[-1].measure_partners(collected.reports, loss_bound)
    history.rounds.append(record)
    history.count(decisions)
    history.cost.add_round(collected.reports, bytes_down, collected.bytes_up)
