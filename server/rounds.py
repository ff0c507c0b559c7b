"""The round loop: ask the partners, merge their updates, measure the model, tell the callbacks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from threading import Event
from typing import Any

from flwr.serverapp import Grid
from torch import Tensor

from common import messages
from common.config import Config, config_hash
from common.evaluation import Evaluation
from common.randomness import Stream, SystemStream
from results.history import History
from server.aggregation import Aggregation
from server.averaging import averaged
from server.callbacks import Callback, RoundResult
from server.checkpoint import Checkpoint, as_state
from server.early_stopping import with_losses
from server.final import check_merged, final_model, final_results
from server.global_model import GlobalModel
from server.meter import Meter
from server.partners import Partners
from server.record import add_round, round_record
from server.registration import Registration
from strategies.pipeline import Pipeline
from strategies.updates import Layout


def system_stream(number: int) -> Stream:
    """Noise for round `number` from the operating system, which nobody can repeat."""
    return SystemStream()


@dataclass
class Server:
    """One run at the coordinator.

    Attributes:
        resumed: the checkpoint to continue from; None for a new run.
        run_id: what partners' ledgers know the run by; the same after a resume.
        callback: what is done with every round and with the delivered model.
        stop: ends the run at the last checkpoint when it is set.
        simulated: whether the partners are this user's own, on this machine.
        client_level_stream: the noise of client-level privacy in a round; secret in a deployment.
        began: when the run's time began, on the clock of `time.monotonic`.
    """

    config: Config
    grid: Grid
    model: GlobalModel
    pipeline: Pipeline
    resumed: Checkpoint | None
    run_id: str
    callback: Callback
    stop: Event
    simulated: bool
    client_level_stream: Callable[[int], Stream] = system_stream
    began: float = field(default_factory=time.monotonic)

    def run(self) -> dict[str, Any]:
        """Run (or continue) to the last round and return the content of results.json.

        Raises:
            UserError: the run cannot begin, a round has too few replies, or no round merged.
            Stopped: `stop` was set.
        """
        rounds, callback = self.config.run.rounds, self.callback
        with Meter(self.began) as meter:
            partners = self._partners()
            self.pipeline.check(len(partners.sampled(1)))
            current = self.resumed or self._untrained(partners.names)
            # As they were fitted when the run began: fitted anew, on another number of cores, they
            # could differ in their last bits, and partners would take the model for another one.
            self.model.write({**current.parameters, **current.constants})
            meter.continue_from(current.history.cost)
            callback.training_starts(current, partners.names)
            callback.started(partners.names, rounds, current.round + 1)
            aggregation = self._aggregation(partners.names)
            while current.round < rounds and not callback.should_stop(current):
                current = self._round(current, partners, aggregation, meter)
            check_merged(current.history)
            final = final_model(current, self.config, self.model, partners)
            callback.training_ended(final)
            meter.update(final.history.cost)
            results = final_results(self.config, final)
            callback.finished(results)
            return results

    def _partners(self) -> Partners:
        registration = Registration(self.config, self.grid, self.model.fingerprint, self.simulated)
        nodes = registration.register(self.run_id, self.stop, self.callback)
        run = self.config.run
        return Partners(nodes, self.grid, run, self.run_id, self.stop, self.callback)

    def _untrained(self, partners: Sequence[str]) -> Checkpoint:
        parameters = self.model.read()
        stages = self.pipeline.init(Layout.of(parameters), partners)
        state = {**stages, **as_state(self.model.constants())}
        identity = config_hash(self.config)
        return Checkpoint(0, self.run_id, identity, parameters, state, History())

    def _aggregation(self, partners: Sequence[str]) -> Aggregation:
        # In the order of the model, which the stages' state is in: a file sorts by name.
        layout, stream = Layout.of(self.model.read()), self.client_level_stream
        return Aggregation(self.config, self.pipeline, self.model, layout, partners, stream)

    def _round(
        self, before: Checkpoint, partners: Partners, aggregation: Aggregation, meter: Meter
    ) -> Checkpoint:
        """Everything from one global model to the next."""
        config, number, began = self.config, before.round + 1, time.monotonic()
        start = aggregation.start(before, partners.sampled(number))
        collector = aggregation.collector(start)
        arrays = {**before.parameters, **self.model.constants()}
        content = partners.model_message(number, arrays)
        answers = partners.ask(start.sampled, messages.TRAIN, number, content, collector.take)
        collected = collector.finish(answers, config.run)
        outcome = aggregation.merge(start, collected.cohort)
        decisions = sorted(collected.decisions + outcome.decisions, key=lambda d: d.partner)
        parameters = aggregation.layout.unflatten(outcome.params)
        test = self._measured(number, parameters)
        history = before.history
        record = round_record(number, history, collected, decisions, test, config)
        record.seconds = time.monotonic() - began
        bytes_down = messages.array_bytes(content)
        add_round(history, record, collected, decisions, bytes_down, config.about.loss_bound)
        meter.update(history.cost)
        average = averaged(before.state, outcome.params, number, config.run)
        state = {**outcome.state, **as_state(before.constants), **average}
        after = replace(before, round=number, parameters=parameters, state=state, history=history)
        after = with_losses(after, [report.loss for report in collected.reports])
        self.callback.round_completed(RoundResult(after, record, decisions))
        self.callback.round_ended(record)
        return after

    def _measured(self, number: int, parameters: dict[str, Tensor]) -> Evaluation | None:
        """The model of round `number` on the server's test rows, in the rounds that measure it."""
        run = self.config.run
        due = number % run.evaluate_every == 0 or number == run.rounds
        return self.model.evaluate(parameters) if self.model.public_rows and due else None
