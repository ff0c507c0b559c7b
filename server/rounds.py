"""The round loop: ask, screen, merge, optimise, checkpoint, measure.

The loop owns order and durability and nothing else: partners are asked through `exchange`, updates
become one model in `strategies`, and what people see hangs on it as observers.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from threading import Event
from typing import Any

import torch
from flwr.app import RecordDict
from flwr.serverapp import Grid
from torch import Tensor

from common import messages
from common.config import Config, config_hash, malicious
from common.errors import UserError
from common.evaluation import Evaluation
from common.files import append_lines, sha256_text, write_atomic
from common.messages import Prepared, Refusal, Report, Request
from common.models.build import build
from common.models.export import export
from common.models.network import Network
from common.randomness import Stream, SystemStream
from common.seeds import torch_generator
from reporting.card import model_card
from reporting.run import write_report
from results.audit import Audit
from results.history import History, RoundRecord, results, results_text, rounds_csv
from server import checkpoint as checkpoints
from server.calibration import calibrate_head
from server.checkpoint import Checkpoint
from server.collect import Collector
from server.exchange import Answer, Answers, ask, registered_names, wait_for_nodes
from server.memory import PeakMemory
from server.observers import Observer
from server.reference import reference_update
from server.reports import Expected, read_report, reply_metrics
from server.sampling import sample
from server.testset import TestSet
from strategies.attacks.kinds import Aggregate
from strategies.attacks.simulate import build_attack, corrupt
from strategies.build import build as build_pipeline
from strategies.build import client_level_spent
from strategies.pipeline import Outcome, Pipeline, TooFewUpdates
from strategies.records import Decision, missing
from strategies.stage import State
from strategies.updates import Cohort, Layout, Reply

log = logging.getLogger(__name__)
AVERAGE_SUM, AVERAGE_COUNT = "average/sum", "average/count"
CONSTANT = "constant/"
# Partners read and cache their rows before the first round, and may have to notice first that the
# server is back: however short the rounds are, they get this long.
PREPARE_SECONDS = 120.0


@dataclass
class Server:
    """One run at the coordinator.

    `simulated`: the partners are this user's own, so one that refuses before the first round ends
    the run (the user can mend it); a deployment goes on without it.
    """

    config: Config
    grid: Grid
    observers: Sequence[Observer]
    stop: Event
    simulated: bool
    client_level_stream: Callable[[int], Stream] = field(default=lambda _: SystemStream())
    network: Network = field(init=False)
    pipeline: Pipeline = field(init=False)
    layout: Layout = field(init=False)
    test: TestSet | None = field(init=False)
    nodes: dict[str, int] = field(init=False, default_factory=dict)
    run_id: str = field(init=False, default="")
    evaluated: tuple[dict[str, Tensor], Evaluation] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.began = time.monotonic()
        config = self.config
        assert config.run.dir is not None
        self.directory = Path(config.run.dir)
        self.audit = Audit(self.directory, config)
        self.expected = Expected.of(config)
        if config.attack.get("_target_") and not self.simulated:
            raise UserError("attack: only a simulation may attack itself; use attack=none")
        self.pipeline = build_pipeline(config.strategy)
        if self.pipeline.client_level is not None and config.run.patience > 0:
            raise UserError(
                "run.patience: early stopping looks at partners' losses, which "
                "strategy.client_level does not cover; set it to 0"
            )
        self.network = build(config.model, config.outputs, config.run.seed, config.task)
        start = self.network.read()
        self.layout = Layout.of(start)
        self.test = TestSet.load(config, self.network)
        if self.test is None and self.pipeline.needs_reference:
            raise UserError(
                "strategy.robust: fltrust trusts the server's own update and needs public rows "
                "at the server; give data.test, or take another rule"
            )
        if self.test:
            calibrate_head(self.network, self.test.validation, self.test.device)

    def run(self) -> dict[str, Any]:
        """Run (or continue) to the last round and return what results.json holds.

        Raises UserError when the run cannot begin or a round has too few replies, Stopped when
        asked to stop.  Whatever ended it, the last checkpoint stands.
        """
        with PeakMemory() as memory:
            found = self._resumable()
            self._register()
            current = found or self._untrained()
            # As they were fitted when the run began: fitted anew, on another number of cores, they
            # could differ in their last bits, and partners would take the model for another one.
            self.network.write({**current.parameters, **_constants(current.state)})
            if found is None:
                # Before any partner reserves a spend: the partners' ledgers know a run by its id,
                # and one that is killed in its first round must come back under the same.
                self._save(current)
            earlier = current.history.cost.wall_seconds
            self.pipeline.check(len(self._sampled(1)))
            self.audit.started(self.run_id, current.round, sorted(self.nodes))
            for observer in self.observers:
                observer.started(sorted(self.nodes), self.config.run.rounds, current.round + 1)
            while current.round < self.config.run.rounds and not self._exhausted(current):
                current = self._round(current, earlier, memory)
            return self._finish(current, earlier, memory)

    def _resumable(self) -> Checkpoint | None:
        """The newest checkpoint of this run directory, if there is one."""
        found = checkpoints.latest(self.directory / "checkpoints")
        if found is None:
            self.run_id = sha256_text(config_hash(self.config), str(time.time_ns()))[:16]
            self._forget_decisions_after(0)
            return None
        if found.config_hash != config_hash(self.config):
            raise UserError(
                f"{self.directory}: holds the checkpoints of another configuration; choose another "
                "run.dir, or continue that run with run.resume"
            )
        self.run_id = found.run_id
        self._forget_decisions_after(found.round)
        return found

    def _untrained(self) -> Checkpoint:
        """Before the first round."""
        return Checkpoint(
            round=0,
            run_id=self.run_id,
            config_hash=config_hash(self.config),
            parameters=self.network.read(),
            state={
                **self.pipeline.init(self.layout, sorted(self.nodes)),
                **{CONSTANT + name: value for name, value in self.network.constants().items()},
            },
            history=History(),
        )

    def _save(self, current: Checkpoint) -> None:
        checkpoints.save(self.directory / "checkpoints", current, self.config.run.keep_checkpoints)

    def _forget_decisions_after(self, last: int) -> None:
        path = self.directory / "decisions.jsonl"
        if path.exists():
            # As bytes: a reason may hold characters at which text would be split as well.
            lines = path.read_bytes().splitlines(keepends=True)
            kept = [x for x in lines if x.endswith(b"\n") and json.loads(x)["round"] <= last]
            write_atomic(path, b"".join(kept))

    def _register(self) -> None:
        """Ask every node to prepare; keep the nodes of those that are ready, by name."""
        run = self.config.run
        deadline = max(run.deadline_seconds, PREPARE_SECONDS)
        found = wait_for_nodes(self.grid, run.partners, deadline, self.stop)
        done = 0

        def progress(_: Answer) -> None:
            nonlocal done
            done += 1
            for observer in self.observers:
                observer.preparing(done, len(found))

        # Taken before anybody answers: who goes away in the meantime keeps its name.
        registered = None if self.simulated else registered_names(self.grid)
        answers = ask(
            self.grid,
            {f"node {node}": node for node in found},
            messages.PREPARE,
            "prepare",
            messages.pack(Request(self.run_id)),
            deadline,
            min(1.0, max(1, run.partners) / max(1, len(found))),
            self.stop,
            progress,
        )
        node_of = {f"node {node}": node for node in found}
        refusals = []
        for answer in answers.received:
            node = node_of[answer.partner]
            known = None if registered is None else registered.get(node, f"node {node}")
            reason = self._unfit(answer.body, known)
            if reason is None:
                assert isinstance(answer.body, Prepared)
                self.nodes[answer.body.partner] = node
            elif self.simulated:
                raise UserError(reason)
            else:
                log.warning("%s does not take part: %s", known, reason)
                refusals.append(f"; {known}: {reason}")
        if len(self.nodes) < max(1, run.partners):
            raise UserError(
                f"{len(self.nodes)} of {max(1, run.partners)} partners are ready "
                f"({len(answers.missing)} did not answer, "
                f"{len(refusals)} refused){''.join(refusals[:3])}"
            )

    def _unfit(self, body: object, registered: str | None) -> str | None:
        """Why a partner cannot take part, or None; `registered` is the name its key stands for."""
        if isinstance(body, Refusal):
            return body.reason
        if not isinstance(body, Prepared):
            return "a partner answered with something that is not an introduction"
        if registered is not None and body.partner != registered:
            return f"partner {registered}: its partner.yaml gives another name than its key"
        if body.version != (ours := version("fedaccord")):
            return f"partner {body.partner}: runs another version of fedaccord; install {ours}"
        if body.partner in self.nodes:
            return f"partner {body.partner}: another node registered under the same name"
        if body.fingerprint != self.network.fingerprint:
            return (
                f"partner {body.partner}: its copy of model.base={self.config.model.base} differs "
                "from the server's; install the same files on both sides"
            )
        return None

    def _read(self, answer: Answer) -> Report:
        """The report in an answer.

        Raises MessageError when there is none that this run can use.
        """
        return read_report(answer, self.expected)

    def _sampled(self, round_number: int) -> list[str]:
        run = self.config.run
        return sample(list(self.nodes), run.fraction, run.seed, round_number)

    def _ask(
        self,
        names: Sequence[str],
        kind: str,
        number: int,
        content: RecordDict,
        on_answer: Callable[[Answer], None],
    ) -> Answers:
        done = 0

        def take(answer: Answer) -> None:
            nonlocal done
            on_answer(answer)
            done += 1
            for observer in self.observers:
                observer.replied(number, done, len(names))

        run = self.config.run
        return ask(
            self.grid,
            {name: self.nodes[name] for name in names},
            kind,
            str(number),
            content,
            run.deadline_seconds,
            run.quorum,
            self.stop,
            take,
        )

    def _round(self, before: Checkpoint, earlier: float, memory: PeakMemory) -> Checkpoint:
        """Everything from one global model to the next, ending with its checkpoint on disk."""
        config, number = self.config, before.round + 1
        started = time.monotonic()
        sampled = self._sampled(number)
        content = self._model_message(number, before.parameters)
        state = {k: v for k, v in before.state.items() if not k.startswith(("average/", CONSTANT))}
        reference = self._reference(before.parameters)
        collector = self._collector(sampled, state, number, reference)
        answers = self._ask(sampled, messages.TRAIN, number, content, collector.take)
        cohort, reports, decisions = self._collected(collector, answers, len(sampled))
        params = self.layout.flatten(before.parameters)
        outcome = self._merged(cohort, params, state, number, reference)
        decisions += outcome.decisions
        record = RoundRecord(
            round=number,
            # Partners that were not asked in this round keep what they have spent.
            epsilon_max=max(
                [r.epsilon for r in reports] + [x.epsilon_max for x in before.history.rounds[-1:]],
                default=0.0,
            ),
            replies=len(cohort.partners),
            refused=sum(d.outcome == "refused" for d in decisions),
            missing=len(answers.missing),
        )
        history = before.history
        if history.rounds:
            history.rounds[-1].measure_partners(reports, self.config.about.loss_bound)
        constants = {k: v for k, v in before.state.items() if k.startswith(CONSTANT)}
        average = self._average(before.state, outcome.params, number)
        kept = {**outcome.state, **constants, **average}
        parameters = self.layout.unflatten(outcome.params)
        if self.test and (number % config.run.evaluate_every == 0 or number == config.run.rounds):
            measured = self._evaluate(parameters)
            record.accuracy, record.loss = measured.accuracy, measured.loss
            for name, value in config.about.round_figures(measured.measured, config.data).items():
                setattr(record, name, value)
        record.seconds = time.monotonic() - started
        history.rounds.append(record)
        self._account(history, reports, decisions, content, collector.bytes_up)
        history.cost.wall_seconds = earlier + time.monotonic() - self.began
        history.cost.peak_rss_mb = max(history.cost.peak_rss_mb, memory.peak_mb)
        decisions = sorted(decisions, key=lambda d: d.partner)
        append_lines(self.directory / "decisions.jsonl", *(d.to_json() for d in decisions))
        after = self._patience(
            replace(before, round=number, parameters=parameters, state=kept, history=history),
            reports,
        )
        self._save(after)
        self.audit.round_ended(number)
        write_atomic(self.directory / "rounds.csv", rounds_csv(history))
        for observer in self.observers:
            observer.round_ended(record)
        return after

    def _merged(
        self, cohort: Cohort, params: Tensor, state: State, number: int, reference: Tensor | None
    ) -> Outcome:
        """The pipeline's outcome; a round with too few updates for its stages merges nothing.

        Else a partner whose updates are refused could end any run that has no partner to spare.
        """
        try:
            return self.pipeline.aggregate(
                cohort,
                params,
                state,
                number,
                self.config.run.rounds,
                torch_generator(self.config.run.seed, "strategy", number),
                (lambda update: self._validation_loss(params + update)) if self.test else None,
                reference=reference,
                noise=self.client_level_stream(number),
            )
        except TooFewUpdates as error:
            log.warning("round %d merges nothing: %s", number, error)
            return self.pipeline.skipped(cohort, params, state, number, str(error))

    def _model_message(self, number: int, parameters: dict[str, Tensor]) -> RecordDict:
        """The global model as partners get it: trainable parameters and public constants."""
        arrays = {**parameters, **self.network.constants()}
        return messages.pack(Request(self.run_id, number), arrays)

    def _collector(
        self, sampled: Sequence[str], state: State, number: int, reference: Tensor | None
    ) -> Collector:
        """What takes the replies of a round as they arrive."""
        run = self.config.run
        attack = build_attack(self.config.attack)
        return Collector(
            Cohort(self.layout, sampled, int(run.updates_mb * 1e6), self.directory),
            self.pipeline.screening,
            number,
            self.config.train.compression,
            self._read,
            reply_metrics,
            partial(self._attacked, attack, state, number, reference) if attack else None,
        )

    def _collected(
        self, collector: Collector, answers: Answers, asked: int
    ) -> tuple[Cohort, Sequence[Report], list[Decision]]:
        """The accepted updates, ordered by name, with their reports; and who has none, and why.

        Raises UserError when they are too few to go on.
        """
        cohort, reports, refusals = collector.finish()
        late = f"no reply within {self.config.run.deadline_seconds:g} s"
        decisions = [missing(name, collector.round, late) for name in answers.missing] + refusals
        if len(cohort.partners) < max(1.0, self.config.run.quorum * asked):
            reasons = "; ".join(d.reason for d in decisions[:3])
            raise UserError(
                f"round {collector.round}: {len(cohort.partners)} usable updates of {asked} "
                f"partners are fewer than run.quorum={self.config.run.quorum:g} asks for "
                f"({reasons}); continue with run.resume"
            )
        return cohort, reports, decisions

    def _reference(self, parameters: dict[str, Tensor]) -> Tensor | None:
        """The server's own update [d] from the incoming model, where the rule in use needs it."""
        if not self.pipeline.needs_reference:
            return None
        assert self.test is not None
        update = reference_update(self.network, parameters, self.test, self.config.train)
        return self.layout.flatten(update)

    def _attacked(
        self,
        attack: Any,
        state: State,
        number: int,
        reference: Tensor | None,
        replies: list[Reply],
    ) -> list[Reply]:
        """The replies as malicious partners of a simulation would have sent them."""

        def rule(rows: Sequence[Reply]) -> Aggregate:
            told = {reply.partner: reply.metrics for reply in rows}
            return self.pipeline.aggregator(told, state, number, reference)

        return corrupt(
            attack,
            sorted(replies, key=lambda r: r.partner),
            malicious(self.config, sorted(self.nodes)),
            self.layout,
            rule,
            torch_generator(self.config.run.seed, "attack", number),
        )

    def _validation_loss(self, params: Tensor) -> float:
        """Loss of candidate parameters [d] on the server's public validation rows."""
        assert self.test is not None
        return self.test.validation_loss(self.network, self.layout.unflatten(params))

    def _evaluate(self, parameters: dict[str, Tensor]) -> Evaluation:
        """On the server's test rows; once for the last round's model when that is delivered."""
        assert self.test is not None
        if self.evaluated is None or not same(self.evaluated[0], parameters):
            self.evaluated = parameters, self.test.evaluate(self.network, parameters)
        return self.evaluated[1]

    def _average(self, state: dict[str, Tensor], params: Tensor, number: int) -> dict[str, Tensor]:
        """The running sum of the last global models (Polyak averaging)."""
        run = self.config.run
        if number <= run.rounds * (1.0 - run.average_last):
            return {}
        total = state.get(AVERAGE_SUM, torch.zeros_like(params)) + params
        count = state.get(AVERAGE_COUNT, torch.zeros(1)) + 1
        return {AVERAGE_SUM: total, AVERAGE_COUNT: count}

    def _delivered(self, current: Checkpoint) -> dict[str, Tensor]:
        if AVERAGE_SUM in current.state:
            return self.layout.unflatten(current.state[AVERAGE_SUM] / current.state[AVERAGE_COUNT])
        return current.parameters

    def _account(
        self,
        history: History,
        reports: Sequence[Report],
        decisions: Sequence[Decision],
        sent: RecordDict,
        bytes_up: int,
    ) -> None:
        cost = history.cost
        cost.train_examples += sum(r.trained_examples for r in reports)
        cost.train_seconds += sum(r.train_seconds for r in reports)
        cost.frozen_seconds += sum(r.frozen_seconds for r in reports)
        cost.partner_seconds += sum(r.message_seconds for r in reports)
        cost.bytes_down_per_partner_round = float(messages.array_bytes(sent))
        cost.bytes_up_per_partner_round = float(bytes_up)
        for decision in decisions:
            if decision.outcome in ("refused", "missing"):
                count = history.refused_rounds.get(decision.partner, 0)
                history.refused_rounds[decision.partner] = count + 1
            elif decision.weight_given is not None:
                weight = history.weight_sums.get(decision.partner, 0.0)
                history.weight_sums[decision.partner] = weight + decision.weight_given

    def _patience(self, after: Checkpoint, reports: Sequence[Report]) -> Checkpoint:
        """Count the rounds since the incoming model's validation loss was last better.

        The median over partners: the mean would let one of them decide when the run ends.
        """
        losses = [r.loss for r in reports if math.isfinite(r.loss)]
        loss = median(losses) if losses else math.inf
        if after.best_loss is None or loss < after.best_loss:
            return replace(after, best_loss=loss, stale_rounds=0)
        return replace(after, stale_rounds=after.stale_rounds + 1)

    def _exhausted(self, current: Checkpoint) -> bool:
        return 0 < self.config.run.patience <= current.stale_rounds

    def _finish(self, current: Checkpoint, earlier: float, memory: PeakMemory) -> dict[str, Any]:
        """Measure the delivered model everywhere, export it, write results.json."""
        delivered = self._delivered(current)
        content = self._model_message(current.round, delivered)
        reports: list[Report] = []

        def take(answer: Answer) -> None:
            with suppress(messages.MessageError):
                reports.append(self._read(answer))

        self._ask(sorted(self.nodes), messages.EVALUATE, current.round, content, take)
        # Replies arrive in any order, and sums of floats depend on it.
        reports.sort(key=lambda r: r.partner)
        if current.history.rounds:
            current.history.rounds[-1].measure_partners(reports, self.config.about.loss_bound)
        test = self._evaluate(delivered) if self.test else None
        export({**delivered, **self.network.constants()}, self.config, self.directory / "model")
        history = current.history
        history.cost.wall_seconds = earlier + time.monotonic() - self.began
        history.cost.peak_rss_mb = max(history.cost.peak_rss_mb, memory.peak_mb)
        final = results(
            history,
            reports,
            test,
            self.config.run.seed,
            config_hash(self.config),
            client_level_spent(self.config.strategy, len(history.rounds)),
            self.config.about,
            self.config.data,
        )
        write_atomic(self.directory / "rounds.csv", rounds_csv(history))
        card = model_card(self.config, final, self.simulated)
        write_atomic(self.directory / "model" / "README.md", card)
        text = results_text(final)
        self.audit.finished(text, reports, test, history.cost)
        write_atomic(self.directory / "results.json", text)
        write_report(self.directory)
        for observer in self.observers:
            observer.finished(final)
        return final


def _constants(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The public constants that a checkpoint holds."""
    return {k.removeprefix(CONSTANT): v for k, v in state.items() if k.startswith(CONSTANT)}


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether two models are equal."""
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
