"""A pipeline as a Flower strategy, for use in anybody's Flower app.

Clients answer as they do to ``FedAvg``: one ArrayRecord with the whole trained model and one
MetricRecord.  The adapter turns models into deltas and back; everything else is the pipeline's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from logging import ERROR, INFO, WARNING, getLogger
from typing import Any

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Result, Strategy
from torch import Tensor

from common.errors import UserError
from strategies.pipeline import Pipeline, TooFewUpdates
from strategies.records import Decision, missing, node_failure, refused
from strategies.stage import State
from strategies.updates import Cohort, Layout, Reply

# Lines beside those of Flower's own strategies.
log = getLogger("flwr").log
METRICS = {"num-examples": "examples", "loss": "loss", "accuracy": "accuracy", "gap": "gap"}


class PipelineStrategy(Strategy):
    """Flower's ``Strategy`` interface around a :class:`strategies.pipeline.Pipeline`.

    Sampling of nodes, evaluation and the averaging of metrics are those of Flower's ``FedAvg``.
    Floating-point arrays are aggregated; others (counters) keep their global values.

    Args:
        pipeline: the composed stages.
        evaluate: loss of a model on the server's public data; needed for appeals.
        reference: trains the incoming model on the server's public data; needed for FLTrust.
        metrics: from the clients' metric names to those that the fair weights read.
        seed: of the pipeline's random stages.
        fedavg: settings of ``FedAvg``, such as ``fraction_train`` or ``min_train_nodes``.

    Attributes:
        decisions: the records of all rounds so far.
        state: every stage's state after the last round.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        evaluate: Callable[[ArrayRecord], float] | None = None,
        reference: Callable[[ArrayRecord], ArrayRecord] | None = None,
        metrics: Mapping[str, str] = METRICS,
        seed: int = 0,
        **fedavg: Any,
    ) -> None:
        if pipeline.appeal is not None and evaluate is None:
            raise UserError("appeal: needs the loss on public data; give evaluate=")
        if pipeline.needs_reference and reference is None:
            raise UserError("robust: fltrust needs the server's own model; give reference=")
        if pipeline.client_level is not None:
            raise UserError(
                "client_level: its proof divides by the number of nodes asked, which this adapter "
                "does not know; leave it out"
            )
        self.pipeline = pipeline
        self.decisions: list[Decision] = []
        self.state: State | None = None
        self._evaluate = evaluate
        self._reference = reference
        self._metrics = dict(metrics)
        self._seed = seed
        self._fedavg = FedAvg(**fedavg)
        self._arrays: ArrayRecord | None = None
        self._rounds = 1
        self._merged_rounds = 0

    def start(self, grid: Grid, initial_arrays: ArrayRecord, num_rounds: int = 3, *args: Any,
              **kwargs: Any) -> Result:  # fmt: skip
        """Run ``num_rounds`` rounds, which the learning-rate schedule needs to know.

        Raises UserError at the end when no round merged an update.
        """
        self._rounds = num_rounds
        self._merged_rounds = 0
        result = super().start(grid, initial_arrays, num_rounds, *args, **kwargs)
        if num_rounds > 0 and self._merged_rounds == 0:
            last = self.decisions[-1].reason if self.decisions else "No node answered."
            raise UserError(
                f"no round merged an update, the model is the initial one; the last reason: {last}"
            )
        return result

    def summary(self) -> None:
        """Log the stages."""
        log(INFO, "\t├──> Pipeline: %s", self.pipeline)
        self._fedavg.summary()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Sample nodes and send them the model; remember it, deltas are against it."""
        self._arrays = arrays.copy()
        return self._fedavg.configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Screen the replies, merge them, step; (None, None) when too few are left to merge."""
        if self._arrays is None:
            raise RuntimeError("configure_train must come before aggregate_train")
        start = _tensors(self._arrays)
        layout = Layout.of(start)
        messages = sorted(replies, key=lambda message: message.metadata.src_node_id)
        cohort = Cohort(layout, [_name(message) for message in messages])
        accepted: list[RecordDict] = []
        for message in messages:
            if message.has_error():
                why = message.error.reason or f"code {message.error.code}"
                reason = f"the node failed ({node_failure(why)})"
                self.decisions.append(missing(_name(message), server_round, reason))
                continue
            refusal = self._put(message, start, cohort)
            if refusal is None:
                accepted.append(message.content)
            else:
                self.decisions.append(refused(_name(message), server_round, refusal))
                log(WARNING, "Refused node %s: %s", _name(message), refusal)
        if messages and not accepted:
            log(
                ERROR,
                "Round %s: none of %s updates was usable, the model stays as it was. The first: %s",
                server_round,
                len(messages),
                self.decisions[-len(messages)].reason,
            )
        params = layout.flatten(start)
        state = self.pipeline.init(layout, cohort.sampled) if self.state is None else self.state
        try:
            outcome = self.pipeline.aggregate(
                cohort,
                params,
                state,
                server_round,
                max(self._rounds, server_round),
                torch.Generator().manual_seed(self._seed * 1_000_003 + server_round),
                evaluate=self._loss(params, layout),
                reference=self._own_update(start, layout),
            )
        except TooFewUpdates as error:
            log(WARNING, "Round %s merges nothing: %s", server_round, error)
            skipped = self.pipeline.skipped(cohort, params, state, server_round, str(error))
            self.decisions.extend(skipped.decisions)
            return None, None
        self.state = outcome.state
        self._merged_rounds += 1
        self.decisions.extend(outcome.decisions)
        return self._record(outcome.params, layout), self._averaged(accepted)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Sample nodes for evaluation, as ``FedAvg`` does."""
        return self._fedavg.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Average the evaluation metrics, as ``FedAvg`` does."""
        return self._fedavg.aggregate_evaluate(server_round, replies)

    def _put(self, message: Message, start: Mapping[str, Tensor], cohort: Cohort) -> str | None:
        """Add a reply to the cohort, or say why it is refused."""
        records = list(message.content.array_records.values())
        reports = list(message.content.metric_records.values())
        if len(records) != 1 or len(reports) != 1:
            return "expected one ArrayRecord and one MetricRecord"
        if self._fedavg.weighted_by_key not in reports[0]:
            return f"the metric {self._fedavg.weighted_by_key} is missing"
        try:
            tensors = _tensors(records[0])
        # Whatever bytes a node sends, numpy reads them: it raises many kinds.
        except Exception as error:
            return f"its arrays cannot be read ({type(error).__name__})"
        delta: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            same = name in start and tensor.shape == start[name].shape
            delta[name] = tensor - start[name] if same else tensor
        metrics: dict[str, Any] = {
            ours: reports[0][theirs]
            for theirs, ours in self._metrics.items()
            if theirs in reports[0]
        }
        reply = Reply(_name(message), delta, metrics)
        refusal = self.pipeline.screening.check(reply, cohort.layout)
        if refusal is None:
            cohort.put(reply)
        return refusal

    def _averaged(self, accepted: list[RecordDict]) -> MetricRecord | None:
        """The metrics that all nodes tell, averaged as ``FedAvg`` does.

        None where they do not average (no weight, lists of different lengths): the model does not
        hang on them, and one node must not end the run with them.
        """
        try:
            return self._fedavg.train_metrics_aggr_fn(
                _shared_metrics(accepted), self._fedavg.weighted_by_key
            )
        except (ArithmeticError, TypeError, ValueError) as error:
            log(WARNING, "Metrics are not averaged: %s", error)
            return None

    def _loss(self, params: Tensor, layout: Layout) -> Callable[[Tensor], float] | None:
        if self._evaluate is None:
            return None
        evaluate = self._evaluate
        return lambda update: evaluate(self._record(params + update, layout))

    def _own_update(self, start: Mapping[str, Tensor], layout: Layout) -> Tensor | None:
        if self._reference is None or self._arrays is None:
            return None
        trained = _tensors(self._reference(self._arrays.copy()))
        return layout.flatten(trained) - layout.flatten(start)

    def _record(self, params: Tensor, layout: Layout) -> ArrayRecord:
        """The global arrays with ``params`` in the place of the floating-point ones."""
        if self._arrays is None:
            raise RuntimeError("configure_train must come first")
        merged = layout.unflatten(params)
        return ArrayRecord(
            {
                name: Array(merged[name].to(_dtype(array)).numpy()) if name in merged else array
                for name, array in self._arrays.items()
            }
        )


def _shared_metrics(contents: list[RecordDict]) -> list[RecordDict]:
    """The metrics that all replies have: Flower's average trips over any other."""
    reports = [next(iter(content.metric_records.values())) for content in contents]
    shared = [key for key in reports[0] if all(key in report for report in reports)]
    return [
        RecordDict({"metrics": MetricRecord({key: report[key] for key in shared})})
        for report in reports
    ]


def _name(message: Message) -> str:
    return str(message.metadata.src_node_id)


def _dtype(array: Array) -> torch.dtype:
    return torch.from_numpy(array.numpy()).dtype


def _tensors(record: ArrayRecord) -> dict[str, Tensor]:
    """The floating-point arrays of a record as tensors."""
    found = {name: torch.from_numpy(array.numpy()) for name, array in record.items()}
    return {name: tensor for name, tensor in found.items() if tensor.is_floating_point()}
