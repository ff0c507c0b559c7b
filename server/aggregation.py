"""From the replies of a round to the next global model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from common.config import Config, malicious
from common.errors import UserError
from common.randomness import Stream
from common.seeds import torch_generator
from server.checkpoint import Checkpoint
from server.collect import Collector
from server.exchange import Answer
from server.global_model import GlobalModel
from server.reports import Expected, read_report, reply_metrics
from strategies.attacks.kinds import Aggregate
from strategies.attacks.simulate import build_attack, corrupt
from strategies.pipeline import Outcome, Pipeline, TooFewUpdates
from strategies.stage import State
from strategies.updates import Cohort, Layout, Reply

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RoundStart:
    """What a round begins with.

    Attributes:
        number: the round, from 1.
        sampled: the partners that are asked, sorted by name.
        params: the global parameters, float32 [d].
        stages: the state of the aggregation's stages.
        reference: the server's own update, float32 [d]; None where the rule does not need it.
    """

    number: int
    sampled: Sequence[str]
    params: Tensor
    stages: State
    reference: Tensor | None


@dataclass(frozen=True)
class Aggregation:
    """Turns a round's replies into the next global model.

    Attributes:
        partners: all that take part in the run, sorted by name.
        client_level_stream: the noise of client-level privacy in a round, by the round's number.
    """

    config: Config
    pipeline: Pipeline
    model: GlobalModel
    layout: Layout
    partners: Sequence[str]
    client_level_stream: Callable[[int], Stream]

    def start(self, before: Checkpoint, sampled: Sequence[str]) -> RoundStart:
        """The round that follows `before`."""
        reference = None
        if self.pipeline.needs_reference:
            reference = self.layout.flatten(self.model.reference_update(before.parameters))
        params = self.layout.flatten(before.parameters)
        return RoundStart(before.round + 1, sampled, params, before.stages, reference)

    def collector(self, start: RoundStart) -> Collector:
        """Takes the round's replies as they arrive."""
        config, run = self.config, self.config.run
        attack = build_attack(config.attack)
        expected = Expected.of(config)

        def read(answer: Answer) -> Any:
            return read_report(answer, expected)

        return Collector(
            Cohort(
                self.layout, start.sampled, int(run.updates_mb * 1e6), Path(str(config.run.dir))
            ),
            self.pipeline.screening,
            start.number,
            config.train.compression,
            read,
            reply_metrics,
            partial(self._attacked, attack, start) if attack else None,
        )

    def merge(self, start: RoundStart, cohort: Cohort) -> Outcome:
        """The pipeline's outcome; a round with too few updates for its stages merges nothing.

        Otherwise a partner whose updates are refused could end any run that has no partner to
        spare.

        Raises UserError when the merged model is not finite.
        """
        try:
            return self.pipeline.aggregate(
                cohort,
                start.params,
                start.stages,
                start.number,
                self.config.run.rounds,
                torch_generator(self.config.run.seed, "strategy", start.number),
                partial(self._loss_after, start.params) if self.model.public_rows else None,
                reference=start.reference,
                noise=self.client_level_stream(start.number),
            )
        except TooFewUpdates as error:
            log.warning("round %d merges nothing: %s", start.number, error)
            return self.pipeline.skipped(
                cohort, start.params, start.stages, start.number, str(error)
            )
        except FloatingPointError as error:
            raise UserError(
                f"{error}; lower strategy.server.lr, or bound updates with "
                "strategy.screening.max_norm, in a new run"
            ) from error

    def _loss_after(self, params: Tensor, update: Tensor) -> float:
        """The public validation loss of `params` + `update`, both float32 [d]."""
        return self.model.validation_loss(self.layout.unflatten(params + update))

    def _attacked(self, attack: Any, start: RoundStart, replies: list[Reply]) -> list[Reply]:
        """The replies as the malicious partners of a simulation would have sent them."""

        def rule(rows: Sequence[Reply]) -> Aggregate:
            metrics = {reply.partner: reply.metrics for reply in rows}
            return self.pipeline.aggregator(metrics, start.stages, start.number, start.reference)

        return corrupt(
            attack,
            sorted(replies, key=lambda r: r.partner),
            malicious(self.config, list(self.partners)),
            self.layout,
            rule,
            torch_generator(self.config.run.seed, "attack", start.number),
        )
