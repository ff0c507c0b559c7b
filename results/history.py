"""What a run remembers of its rounds: a checkpoint keeps it, and results.json is made from it."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from common import metrics
from common.messages import Report
from common.tasks import LOSS_BOUND, TASKS
from results.partners import loss_error, partner_figures
from strategies.records import Decision

# The columns that the tasks of this package have in rounds.csv, in every run.
TASK_FIGURES = tuple(task.headline.name for task in TASKS.values() if task.headline)


@dataclass
class RoundRecord:
    """The figures of one round.

    `accuracy`, `loss` and `figures` (held-out test set) and the partner columns (each partner's
    validation rows) describe the global model that the round produced; None where not measured.

    Attributes:
        round: the round's number, from 1.
        figures: the task's own figures by name, such as `entity_f1`.
        mean_partner_accuracy_error: standard error of the noise that partners added to their
            counts, 0 where they added none; likewise every other `_error`.
        epsilon_max: the largest epsilon that a partner has spent on this run so far.
        seconds: wall-clock time from asking the partners to the merged, evaluated model.
    """

    round: int
    accuracy: float | None = None
    loss: float | None = None
    figures: dict[str, float | None] = field(default_factory=dict)
    mean_partner_accuracy: float | None = None
    mean_partner_accuracy_error: float | None = None
    worst_partner_accuracy: float | None = None
    worst_partner_accuracy_error: float | None = None
    partner_accuracy_std: float | None = None
    validation_loss: float | None = None
    validation_loss_error: float | None = None
    epsilon_max: float = 0.0
    replies: int = 0
    refused: int = 0
    missing: int = 0
    seconds: float = 0.0

    def row(self) -> dict[str, Any]:
        """The record as one flat row: each task figure under its own name, after the loss.

        Every row has the columns of `TASK_FIGURES`; a figure of any other task follows them.
        """
        flat: dict[str, Any] = {}
        for name, value in asdict(self).items():
            if name == "figures":
                flat |= dict.fromkeys(TASK_FIGURES) | value
            else:
                flat[name] = value
        return flat

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> RoundRecord:
        """Inverse of `row`: what is no field of the record is a figure of the task."""
        names = {f.name for f in fields(cls)} - {"figures"}
        known = {name: value for name, value in row.items() if name in names}
        figures = {
            name: value
            for name, value in row.items()
            if name not in names and not (value is None and name in TASK_FIGURES)
        }
        return cls(**known, figures=figures)

    def measure_partners(self, reports: Sequence[Report], loss_bound: float = LOSS_BOUND) -> None:
        """Fill the partner columns from reports on this round's model; see `loss_error`."""
        found = partner_figures(reports)
        if found["mean_partner_accuracy"] is not None:
            self.mean_partner_accuracy = found["mean_partner_accuracy"]
            self.mean_partner_accuracy_error = found["mean_partner_accuracy_error"]
            self.worst_partner_accuracy = found["worst_partner_accuracy"]
            self.worst_partner_accuracy_error = found["worst_partner_accuracy_error"]
            self.partner_accuracy_std = found["partner_accuracy_std"]
        measured = [report for report in reports if math.isfinite(report.loss)]
        if measured:
            self.validation_loss = float(np.mean([report.loss for report in measured]))
            self.validation_loss_error = metrics.mean_error(
                [loss_error(r, loss_bound) for r in measured]
            )


@dataclass
class Cost:
    """What a run took, over all its resumptions: seconds, bytes, and megabytes of memory (10^6)."""

    wall_seconds: float = 0.0
    train_examples: float = 0.0
    train_seconds: float = 0.0
    frozen_seconds: float = 0.0
    partner_seconds: float = 0.0
    bytes_up_per_partner_round: float = 0.0
    bytes_down_per_partner_round: float = 0.0
    peak_rss_mb: float = 0.0

    def add_round(self, reports: Sequence[Report], bytes_down: int, bytes_up: int) -> None:
        """Add a round's work; the bytes are those of one partner in the latest round."""
        self.train_examples += sum(r.trained_examples for r in reports)
        self.train_seconds += sum(r.train_seconds for r in reports)
        self.frozen_seconds += sum(r.frozen_seconds for r in reports)
        self.partner_seconds += sum(r.message_seconds for r in reports)
        self.bytes_down_per_partner_round = float(bytes_down)
        self.bytes_up_per_partner_round = float(bytes_up)


@dataclass
class History:
    """Everything that results.json needs of the rounds.

    Attributes:
        refused_rounds: by partner, the rounds in which its update was refused or missing.
        weight_sums: by partner, the sum over rounds of the weight its update entered with.
    """

    rounds: list[RoundRecord] = field(default_factory=list)
    cost: Cost = field(default_factory=Cost)
    refused_rounds: dict[str, int] = field(default_factory=dict)
    weight_sums: dict[str, float] = field(default_factory=dict)

    @property
    def merged_nothing(self) -> bool:
        """Whether there were rounds and no update entered the model in any of them."""
        return bool(self.rounds) and not any(self.weight_sums.values())

    def count(self, decisions: Sequence[Decision]) -> None:
        """Add a round's decisions to the weights and refusals by partner."""
        for decision in decisions:
            if decision.outcome in ("refused", "missing"):
                rounds = self.refused_rounds.get(decision.partner, 0)
                self.refused_rounds[decision.partner] = rounds + 1
            elif decision.weight_given is not None:
                weight = self.weight_sums.get(decision.partner, 0.0)
                self.weight_sums[decision.partner] = weight + decision.weight_given

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {**asdict(self), "rounds": [record.row() for record in self.rounds]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> History:
        """Inverse of `to_json`."""
        return cls(
            rounds=[RoundRecord.from_row(row) for row in data["rounds"]],
            cost=Cost(**data["cost"]),
            refused_rounds=data["refused_rounds"],
            weight_sums=data["weight_sums"],
        )


def rounds_csv(history: History) -> str:
    """The content of rounds.csv: a header, then one line per round."""
    rows = [record.row() for record in history.rounds]
    columns = dict.fromkeys(name for row in rows or [RoundRecord(0).row()] for name in row)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
