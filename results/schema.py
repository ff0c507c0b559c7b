"""The content of results.json, schema version 1 (docs/results.md)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from common import metrics
from common.data.schema import DataConfig
from common.messages import Report
from common.metrics import Counts
from common.tasks import TASKS, Measured, Task
from results import fairness
from results.history import Cost, History
from results.partners import (
    finite,
    loss_error,
    partner_accuracy,
    partner_accuracy_error,
    partner_figures,
    pooled,
)

if TYPE_CHECKING:
    # It brings the models, whose import takes seconds, and a run is checked before that.
    from common.evaluation import Evaluation

RESULTS_VERSION = 1


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
    """The content of results.json.

    Args:
        history: the run's rounds and cost.
        reports: each partner's measurement of the delivered model on its validation rows.
        test: the server's measurement on its own test rows.  Without one the final figures are
            those of all partners' validation counts together, of which no partner has more than
            three times the median partner's (`pooled`).
        seed: the run's seed.
        config_hash: the identity of the run's configuration.
        client_level: epsilon and settings of client-level privacy, where it was used.
        task: what was learnt.
        data: the data settings that the task's figures need.

    Returns:
        Plain JSON values; a figure that could not be measured is None.
    """
    data = data or DataConfig()
    measured = _measured(reports, test)
    own = {r.partner: task.figures(_own(r), data) for r in reports}
    found = {
        "schema_version": RESULTS_VERSION,
        "config_hash": config_hash,
        "seed": seed,
        "rounds": [_plain(record.row()) for record in history.rounds],
        "final": {
            **_model_figures(measured, task, data),
            **_worst(task, list(own.values())),
            "loss_error": finite(_loss_noise(reports, test, task)),
            **partner_figures(reports),
            "partners": _partners(history, reports, own),
            "groups": _groups(measured),
            "gaps": _plain(metrics.gaps(list(measured.groups.values()))),
            "fairness": _fairness(measured, reports),
            "data": _data(measured, reports),
            "epsilon": {
                "max": max((r.epsilon for r in reports), default=0.0),
                "delta": max((r.delta for r in reports), default=0.0),
            },
            "client_level": client_level and dict(client_level),
        },
        "cost": _cost(history.cost),
    }
    return found if task.classes else _without_rates(found)


def results_text(found: Mapping[str, Any]) -> str:
    """The text of results.json, to the byte."""
    return json.dumps(found, indent=2) + "\n"


@dataclass(frozen=True)
class _Measurement:
    """What the final figures are computed from.

    Attributes:
        confusion: counts [true, predicted] over all measured rows.
        groups: the same per "column=value".
        sums: the task's own sums; None where there are none.
        loss: mean loss; None where nobody measured one.
        noise: standard deviation of the privacy noise on each count.
        extra: figures of the server's own rows that do not follow from sums.
        on: "test" (the server's rows) or "validation" (the partners' rows).
    """

    confusion: Counts
    groups: dict[str, Counts]
    sums: Counts | None
    loss: float | None
    noise: float
    extra: Mapping[str, float]
    on: str


def _measured(reports: Sequence[Report], test: Evaluation | None) -> _Measurement:
    if test is not None:
        return _Measurement(
            test.confusion, test.groups, test.sums, test.loss, 0.0, test.extra, "test"
        )
    together = pooled(reports)
    losses = [r.loss for r in reports if math.isfinite(r.loss)]
    return _Measurement(
        confusion=np.sum([np.asarray(r.confusion) for r in together], axis=0),
        groups=_sum_groups(together),
        sums=_sum(together),
        loss=float(np.mean(losses)) if losses else None,
        # Counts that several partners released add up, and so do the variances of their noise.
        noise=math.sqrt(sum(r.count_noise**2 for r in together)),
        extra={},
        on="validation",
    )


def _model_figures(measured: _Measurement, task: Task, data: DataConfig) -> dict[str, Any]:
    """Accuracy, loss and the task's own figures of the delivered model."""
    loss = math.nan if measured.loss is None else measured.loss
    table = Measured(measured.confusion, measured.sums, loss)
    return {
        "accuracy": finite(metrics.accuracy(measured.confusion)),
        "accuracy_error": finite(metrics.accuracy_error(measured.confusion, measured.noise)),
        "macro_f1": finite(metrics.macro_f1(measured.confusion)),
        "loss": finite(measured.loss),
        **task.figures(table, data),
        **task.details(table, measured.extra, data),
    }


def _loss_noise(reports: Sequence[Report], test: Evaluation | None, task: Task) -> float:
    """Standard error of the final loss by privacy noise; the server's own rows carry none."""
    if test is not None:
        return 0.0
    return metrics.mean_error(
        [loss_error(r, task.loss_bound) for r in reports if math.isfinite(r.loss)]
    )


def _partners(
    history: History,
    reports: Sequence[Report],
    own: Mapping[str, Mapping[str, float | None]],
) -> dict[str, dict[str, Any]]:
    """Each partner's figures, by name; `own` holds the task's."""
    total_weight = sum(history.weight_sums.values()) or 1.0
    return {
        r.partner: {
            "accuracy": finite(partner_accuracy(r)),
            "accuracy_error": finite(partner_accuracy_error(r)),
            **own[r.partner],
            "epsilon": r.epsilon,
            "weight_share": history.weight_sums.get(r.partner, 0.0) / total_weight,
            "refused_rounds": history.refused_rounds.get(r.partner, 0),
        }
        for r in sorted(reports, key=lambda r: r.partner)
    }


def _groups(measured: _Measurement) -> dict[str, dict[str, Any]]:
    """Each group's figures, by "column=value"."""
    found = {}
    for name, counts in sorted(measured.groups.items()):
        tpr, fpr = metrics.rates(counts)
        tpr_error, fpr_error = metrics.rates_error(counts, measured.noise)
        found[name] = {
            "accuracy": finite(metrics.accuracy(counts)),
            "tpr": finite(tpr),
            "fpr": finite(fpr),
            "n": float(counts.sum()),
            "accuracy_error": finite(metrics.accuracy_error(counts, measured.noise)),
            "tpr_error": finite(tpr_error),
            "fpr_error": finite(fpr_error),
            "n_error": measured.noise * math.sqrt(counts.size),
        }
    return found


def _fairness(measured: _Measurement, reports: Sequence[Report]) -> Any:
    return _plain(
        {
            "partners": fairness.spread([partner_accuracy(r) for r in reports]),
            "groups": {
                column: fairness.groups(tables, measured.noise)
                for column, tables in sorted(fairness.by_column(measured.groups).items())
            },
            "minimum_rows": fairness.MINIMUM,
        }
    )


def _data(measured: _Measurement, reports: Sequence[Report]) -> dict[str, Any]:
    """How many rows trained the model and how many measured it."""
    return {
        "partners": len(reports),
        "training_rows": finite(sum(r.examples for r in reports)),
        "training_rows_error": math.sqrt(sum(r.examples_noise**2 for r in reports)),
        "partner_metrics": "private" if any(r.examples_noise for r in reports) else "exact",
        "measured_on": measured.on,
        "measured_rows": float(measured.confusion.sum()),
        "measured_rows_error": measured.noise * math.sqrt(measured.confusion.size),
    }


def _cost(cost: Cost) -> dict[str, float]:
    figures = asdict(cost)
    seconds, examples = figures.pop("train_seconds"), figures.pop("train_examples")
    return {
        **figures,
        "train_seconds": seconds,
        "train_examples_per_second": examples / seconds if seconds > 0 else 0.0,
    }


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


def _own(report: Report) -> Measured:
    sums = np.asarray(report.sums, dtype=np.float64) if report.sums else None
    return Measured(np.asarray(report.confusion), sums, report.loss)


def _sum(reports: Sequence[Report]) -> Counts | None:
    """The task's sums over all partners; None where no partner reports any."""
    reported = [np.asarray(r.sums, dtype=np.float64) for r in reports if r.sums]
    return np.sum(reported, axis=0) if reported else None


def _sum_groups(reports: Sequence[Report]) -> dict[str, Counts]:
    summed: dict[str, Counts] = {}
    for report in reports:
        for name, counts in report.groups.items():
            summed[name] = summed.get(name, 0.0) + np.asarray(counts)
    return summed


def _worst(task: Task, own: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """The task's headline figure at the partner where it is worst."""
    if task.headline is None:
        return {}
    name = task.headline.name
    known = [value for figures in own if (value := figures[name]) is not None]
    return {f"worst_partner_{name}": task.headline.worst(known)}


def _plain(value: Any) -> Any:
    """The same with None in the place of every number that is not finite."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return finite(value) if isinstance(value, float) else value
