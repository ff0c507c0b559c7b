"""What is remembered of each round, and the results file made from it."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from statistics import median_low
from typing import TYPE_CHECKING, Any

import numpy as np

from common import metrics
from common.data.schema import DataConfig
from common.messages import Report
from common.tasks import LOSS_BOUND, TASKS, Measured, Task
from results import fairness

if TYPE_CHECKING:
    # It brings the models, whose import takes seconds, and a run is checked before that.
    from common.evaluation import Evaluation

RESULTS_VERSION = 1
# How much one partner may count for in figures of all partners together; `pooled` says why.
MOST_OF_MEDIAN = 3.0
MOST_NOISE_OF_MEDIAN = 10.0


@dataclass
class RoundRecord:
    """Round r.  `accuracy`, `loss` (held-out test set) and the partner columns (each partner's
    validation rows) describe the global model that round r produced; None where not measured.
    An `_error` is the standard error of the noise that partners added (0 where they added none)."""

    round: int
    accuracy: float | None = None
    loss: float | None = None
    entity_f1: float | None = None
    micro_f1: float | None = None
    mae: float | None = None
    perplexity: float | None = None
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

    def measure_partners(self, reports: Sequence[Report], loss_bound: float = LOSS_BOUND) -> None:
        """Fill the partner columns from reports on this round's model; see `loss_error`."""
        found = partner_figures(reports)
        if found["mean_partner_accuracy"] is not None:
            self.mean_partner_accuracy = found["mean_partner_accuracy"]
            self.mean_partner_accuracy_error = found["mean_partner_accuracy_error"]
            self.worst_partner_accuracy = found["worst_partner_accuracy"]
            self.worst_partner_accuracy_error = found["worst_partner_accuracy_error"]
            self.partner_accuracy_std = found["partner_accuracy_std"]
        told = [report for report in reports if math.isfinite(report.loss)]
        if told:
            self.validation_loss = float(np.mean([report.loss for report in told]))
            self.validation_loss_error = metrics.mean_error(
                [loss_error(r, loss_bound) for r in told]
            )


@dataclass
class Cost:
    """What a run took, over all its resumptions."""

    wall_seconds: float = 0.0
    train_examples: float = 0.0
    train_seconds: float = 0.0
    frozen_seconds: float = 0.0
    partner_seconds: float = 0.0
    bytes_up_per_partner_round: float = 0.0
    bytes_down_per_partner_round: float = 0.0
    peak_rss_mb: float = 0.0


@dataclass
class History:
    """Everything a results file needs and a checkpoint keeps."""

    rounds: list[RoundRecord] = field(default_factory=list)
    cost: Cost = field(default_factory=Cost)
    refused_rounds: dict[str, int] = field(default_factory=dict)
    weight_sums: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> History:
        """Inverse of `to_json`."""
        return cls(
            rounds=[RoundRecord(**row) for row in data["rounds"]],
            cost=Cost(**data["cost"]),
            refused_rounds=data["refused_rounds"],
            weight_sums=data["weight_sums"],
        )


def partner_accuracy(report: Report) -> float:
    """Accuracy from the counts a partner released."""
    return metrics.accuracy(np.asarray(report.confusion))


def partner_accuracy_error(report: Report) -> float:
    """Standard error of `partner_accuracy` by the noise on the counts; a share's is at most 0.5."""
    error = metrics.accuracy_error(np.asarray(report.confusion), report.count_noise)
    return error if math.isnan(error) else min(error, 0.5)


def pooled(reports: Sequence[Report]) -> list[Report]:
    """The reports with their counts as they enter figures of all partners together.

    Without public rows these figures are sums of counts that partners tell, and whoever tells large
    ones would decide them.  So nobody counts for more than `MOST_OF_MEDIAN` times the median
    partner (by the sum of its counts): of a partner with more, counts, sums and noise are scaled
    down to that.  A partner whose noise is above `MOST_NOISE_OF_MEDIAN` times the median partner's
    counts for nothing: its counts tell nothing, and its noise would hide what the others tell.
    Medians are the lower ones, so with two partners the smaller is the measure.  Up to half of the
    partners can move a median within the range of the others only.
    """
    told = [r for r in reports if np.any(r.confusion)]
    if not told:
        return list(reports)
    most = MOST_OF_MEDIAN * median_low([_rows(r) for r in told])
    most_noise = MOST_NOISE_OF_MEDIAN * median_low([r.count_noise for r in told])
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
    """Standard error of the loss by noise: that on the sum of the losses (`loss_bound` times that
    of a count), and that on the number of rows, the sum of all counts (delta method)."""
    counts = np.asarray(report.confusion)
    total = float(counts.sum())
    if report.count_noise == 0 or total <= 0:
        return 0.0 if report.count_noise == 0 else math.nan
    spread = math.hypot(loss_bound, report.loss * math.sqrt(counts.size))
    # That of a number in [0, loss_bound] is at most half of it.
    return min(report.count_noise * spread / total, loss_bound / 2)


def partner_figures(reports: Sequence[Report]) -> dict[str, float | None]:
    """Accuracy over partners, with the standard errors of noise; None where nobody measured."""
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
        "mean_partner_accuracy_error": _finite(metrics.mean_error([e for _, e in pairs])),
        "partner_accuracy_std": float(np.std(scores)),
        "worst_partner_accuracy": worst[0],
        "worst_partner_accuracy_error": _finite(worst[1]),
    }


def rounds_csv(history: History) -> str:
    """One line a round, the columns of RoundRecord."""
    out = io.StringIO()
    writer = csv.DictWriter(out, [f.name for f in fields(RoundRecord)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in history.rounds)
    return out.getvalue()


def _plain(value: Any) -> Any:
    """The same without NaN or infinity: what was not measurable is null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return _finite(value) if isinstance(value, float) else value


def _finite(value: float | None) -> float | None:
    """JSON has no NaN: what was not measurable is null."""
    return None if value is None or not math.isfinite(value) else float(value)


def results(
    history: History,
    reports: Sequence[Report],
    test: Evaluation | None,
    seed: int,
    config_hash: str,
    client_level: Mapping[str, float] | None = None,
    task: Task = TASKS["classification"],
    data: DataConfig | None = None,
) -> dict[str, Any]:
    """The content of results.json (schema version 1, docs/results.md).

    Without a test set the final figures are those of all partners' validation counts together, of
    which no partner has more than three times the median partner's (`pooled`).
    """
    together = [] if test else pooled(reports)
    confusion = (
        test.confusion if test else np.sum([np.asarray(r.confusion) for r in together], axis=0)
    )
    groups = test.groups if test else _sum_groups(together)
    total_weight = sum(history.weight_sums.values()) or 1.0
    told = [r for r in reports if math.isfinite(r.loss)]
    final_loss = test.loss if test else float(np.mean([r.loss for r in told])) if told else None
    loss_noise = 0.0 if test else metrics.mean_error([loss_error(r, task.loss_bound) for r in told])
    # Counts that several partners released add up, and so do the variances of their noise.
    noise = math.sqrt(sum(r.count_noise**2 for r in together))
    wrong = {name: metrics.rates_error(counts, noise) for name, counts in groups.items()}
    rates = {name: metrics.rates(counts) for name, counts in groups.items()}
    data = data or DataConfig()
    own = {r.partner: task.figures(_measured(r), data) for r in reports}
    measured = (
        test.measured if test else Measured(confusion, _sum(together), final_loss or math.nan)
    )
    cost = asdict(history.cost)
    seconds = cost.pop("train_seconds")
    examples = cost.pop("train_examples")
    found = {
        "schema_version": RESULTS_VERSION,
        "config_hash": config_hash,
        "seed": seed,
        "rounds": [
            {k: _finite(v) if isinstance(v, float) else v for k, v in asdict(row).items()}
            for row in history.rounds
        ],
        "final": {
            "accuracy": _finite(metrics.accuracy(confusion)),
            "accuracy_error": _finite(metrics.accuracy_error(confusion, noise)),
            "macro_f1": _finite(metrics.macro_f1(confusion)),
            "loss": _finite(final_loss),
            **task.figures(measured, data),
            **task.details(measured, test.extra if test else {}, data),
            **_worst(task, list(own.values())),
            "loss_error": _finite(loss_noise),
            **partner_figures(reports),
            "partners": {
                r.partner: {
                    "accuracy": _finite(partner_accuracy(r)),
                    "accuracy_error": _finite(partner_accuracy_error(r)),
                    **own[r.partner],
                    "epsilon": r.epsilon,
                    "weight_share": history.weight_sums.get(r.partner, 0.0) / total_weight,
                    "refused_rounds": history.refused_rounds.get(r.partner, 0),
                }
                for r in sorted(reports, key=lambda r: r.partner)
            },
            "groups": {
                name: {
                    "accuracy": _finite(metrics.accuracy(counts)),
                    "tpr": _finite(rates[name][0]),
                    "fpr": _finite(rates[name][1]),
                    "n": float(counts.sum()),
                    "accuracy_error": _finite(metrics.accuracy_error(counts, noise)),
                    "tpr_error": _finite(wrong[name][0]),
                    "fpr_error": _finite(wrong[name][1]),
                    "n_error": noise * math.sqrt(counts.size),
                }
                for name, counts in sorted(groups.items())
            },
            "gaps": {k: _finite(v) for k, v in metrics.gaps(list(groups.values())).items()},
            "fairness": _plain(
                {
                    "partners": fairness.spread([partner_accuracy(r) for r in reports]),
                    "groups": {
                        column: fairness.groups(tables, noise)
                        for column, tables in sorted(fairness.by_column(groups).items())
                    },
                    "minimum_rows": fairness.MINIMUM,
                }
            ),
            "data": {
                "partners": len(reports),
                "training_rows": _finite(sum(r.examples for r in reports)),
                "training_rows_error": math.sqrt(sum(r.examples_noise**2 for r in reports)),
                "partner_metrics": "private" if any(r.examples_noise for r in reports) else "exact",
                "measured_on": "test" if test else "validation",
                "measured_rows": float(confusion.sum()),
                "measured_rows_error": noise * math.sqrt(confusion.size),
            },
            "epsilon": {
                "max": max((r.epsilon for r in reports), default=0.0),
                "delta": max((r.delta for r in reports), default=0.0),
            },
            "client_level": client_level and dict(client_level),
        },
        "cost": {
            **cost,
            "train_seconds": seconds,
            "train_examples_per_second": examples / seconds if seconds > 0 else 0.0,
        },
    }
    return found if task.classes else _without_rates(found)


def _without_rates(found: dict[str, Any]) -> dict[str, Any]:
    """Without the figures that only classes have: rates, and differences in them."""
    final = found["final"]
    groups = final["fairness"]["groups"].values()
    rates = ("tpr", "fpr", "selection")
    for row in [*final["groups"].values(), *(row for g in groups for row in g["values"].values())]:
        for key in [key for key in row if key.startswith(rates) or key == "predicted"]:
            row[key] = [] if key == "predicted" else None
    for gaps in [final["gaps"], *(group["gaps"] for group in groups)]:
        gaps.update({name: None for name in gaps if name != "accuracy"})
    for group in groups:
        group |= {"prediction_kl": None, "prediction_absolute": None}
    return found


def _measured(report: Report) -> Measured:
    sums = np.asarray(report.sums, dtype=np.float64) if report.sums else None
    return Measured(np.asarray(report.confusion), sums, report.loss)


def _sum(reports: Sequence[Report]) -> metrics.Counts | None:
    """The sums of all partners together; None where none tells any."""
    told = [np.asarray(r.sums, dtype=np.float64) for r in reports if r.sums]
    return np.sum(told, axis=0) if told else None


def _worst(task: Task, own: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """The task's headline at the partner where it is worst, of those that know it."""
    if task.headline is None:
        return {}
    name = task.headline.name
    known = [value for figures in own if (value := figures[name]) is not None]
    return {f"worst_partner_{name}": task.headline.worst(known)}


def results_text(found: Mapping[str, Any]) -> str:
    """The very text of results.json."""
    return json.dumps(found, indent=2) + "\n"


def _sum_groups(reports: Sequence[Report]) -> dict[str, metrics.Counts]:
    summed: dict[str, metrics.Counts] = {}
    for report in reports:
        for name, counts in report.groups.items():
            summed[name] = summed.get(name, 0.0) + np.asarray(counts)
    return summed
