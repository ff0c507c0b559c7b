"""The stages of a round, composed: screen, pre-aggregate, weigh, merge, hear appeals, step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Generator, Tensor

from common.errors import UserError
from common.randomness import Stream
from strategies.appeal import Appeal, Evaluate, Verdict
from strategies.client_level import ClientLevel
from strategies.pre.clipping import clip_to
from strategies.records import Decision, explain, refused
from strategies.rows import Rows
from strategies.screening import LARGEST_NORM, Screening
from strategies.stage import (
    Context,
    FairWeights,
    PreStage,
    RobustRule,
    RuleResult,
    ServerOptimizer,
    State,
)
from strategies.updates import Cohort, Layout


class TooFewUpdates(UserError):
    """A round has fewer sound updates than its stages need."""


@dataclass(frozen=True)
class Outcome:
    """What a round made of its updates.

    Attributes:
        params: the new global parameters, float32 [d].
        update: the merged update before the server optimiser, float32 [d].
        state: every stage's state, for the next round and for checkpoints.
        decisions: one record per row of the cohort, in its order.
    """

    params: Tensor
    update: Tensor
    state: State
    decisions: list[Decision]


@dataclass(frozen=True)
class Pipeline:
    """Every stage of the aggregation.  The stages hold settings only; state is explicit."""

    screening: Screening
    pre: Mapping[str, PreStage]
    fair: FairWeights
    robust: RobustRule
    appeal: Appeal | None
    server: ServerOptimizer
    client_level: ClientLevel | None = None

    def __post_init__(self) -> None:
        required = tuple(dict.fromkeys((*self.screening.required, *self.fair.needs)))
        object.__setattr__(self, "screening", replace(self.screening, required=required))

    @property
    def needs_reference(self) -> bool:
        """Whether ``aggregate`` wants the server's own update."""
        return self.robust.needs_reference

    def check(self, n: int) -> None:
        """Raise UserError when a stage's precondition fails for n partners in a round."""
        self.fair.check(n)
        self._check_rows(n)
        f = getattr(self.robust, "f", 0)
        # A malicious row spoils its bucket, and with it the weight of the others in there.
        held = f * math.prod(getattr(stage, "size", 1) for stage in self.pre.values())
        if self.robust.breaks_at_half_weight and self.fair.cap * held >= 0.5:
            name = self.robust.title.removeprefix("The ")
            within = " in their buckets" if held > f else ""
            raise UserError(
                f"strategy.fair.cap: {f} malicious partners{within} could hold half of the weight "
                f"with {self.fair.cap:g} for each, which {name} cannot bear; "
                f"set it below {0.5 / held:.3g}"
            )

    def _check_rows(self, n: int) -> None:
        for stage in self.pre.values():
            stage.check(n)
            n = stage.rows_after(n)
        self.robust.check(n)

    def init(self, layout: Layout, partners: Sequence[str]) -> State:
        """The state before the first round; keys are ``fair/…``, ``robust/…``, ``server/…``."""
        return {
            **_prefixed("fair", self.fair.init()),
            **_prefixed("robust", self.robust.init(layout.size)),
            **_prefixed("server", self.server.init(layout.size)),
        }

    def aggregate(
        self,
        cohort: Cohort,
        params: Tensor,
        state: State,
        round: int,
        rounds: int,
        generator: Generator,
        evaluate: Evaluate | None = None,
        reference: Tensor | None = None,
        noise: Stream | None = None,
    ) -> Outcome:
        """Merge a round's accepted updates into the global parameters.

        Args:
            cohort: screened replies; not changed.
            params: global parameters, float32 [d]; not changed.
            state: from :meth:`init` or the last round; not changed.
            round, rounds: this round, from 1, and how many there will be.
            generator: randomness of this round.
            evaluate: loss on the server's public validation set of ``params + update``; needed
                for appeals.
            reference: the server's own update [d] from public data, for FLTrust.
            noise: source of client-level noise; needed with that stage, and nobody may know it.

        Raises:
            TooFewUpdates: for a rule or a stage before it; :meth:`skipped` is then the outcome.
            UserError: something that a stage needs is absent.
            FloatingPointError: the result is not finite, and nothing was merged.
        """
        names, rows, refusals = self._admitted(cohort, round)
        requested, fair_state = self._requested(cohort, names, _part("fair", state))
        merge = self._merge(rows, requested, _part("robust", state), Context(generator, reference))
        verdict = None
        if self.appeal is not None:
            if evaluate is None:
                raise UserError("strategy.appeal: needs a public validation set at the server")
            judge = self._judge(evaluate, params, state, round, rounds)
            verdict = self.appeal.hear(rows, merge.result.update, requested, merge.shares, judge)
        update = merge.result.update if verdict is None else verdict.update
        if self.client_level is not None:
            if noise is None:
                raise ValueError("client-level noise needs a stream")
            update = self.client_level.noised(update, len(cohort.sampled), noise)
        _assert_finite(update, round)
        moved, server_state = self.server.step(
            _part("server", state), params, update, round, rounds
        )
        _assert_finite(moved, round)
        decisions = self._decide(names, rows, requested, merge, verdict, round)
        return Outcome(
            params=moved,
            update=update,
            state={
                **_prefixed("fair", fair_state),
                **_prefixed("robust", merge.result.state),
                **_prefixed("server", server_state),
            },
            decisions=_in_order(cohort, decisions, refusals),
        )

    def _admitted(self, cohort: Cohort, round: int) -> tuple[list[str], Rows, list[Decision]]:
        """Names and rows of the sound updates, and the refusals of the others."""
        names, rows, refusals = _sound_rows(cohort, round)
        if not names:
            raise TooFewUpdates(f"round {round}: no update was accepted")
        try:
            self._check_rows(len(names))
        except UserError as error:
            raise TooFewUpdates(str(error)) from error
        return names, rows, refusals

    def _requested(
        self, cohort: Cohort, names: Sequence[str], state: State
    ) -> tuple[Tensor, State]:
        """The weights that the sound updates request, float64 [n], and the fair state."""
        by_partner = dict(zip(cohort.partners, cohort.metrics, strict=True))
        weights, after = self.fair.weights({name: by_partner[name] for name in names}, state)
        if self.client_level is not None:
            # Over the partners asked: without a reply the others' weights stay as they are.
            weights = torch.full((len(names),), 1 / len(cohort.sampled), dtype=torch.float64)
        return weights, after

    def skipped(
        self, cohort: Cohort, params: Tensor, state: State, round: int, why: str
    ) -> Outcome:
        """The outcome of a round that merges nothing: the model stays, every update is dropped.

        Args:
            why: what :class:`TooFewUpdates` said.
        """
        names, rows, refusals = _sound_rows(cohort, round)
        decisions = [
            Decision(name, round, "dropped", f"The round merged nothing: {why}.", norm=norm)
            for name, norm in zip(names, rows.norms.tolist(), strict=True)
        ]
        return Outcome(
            params=params.clone(),
            update=torch.zeros_like(params),
            state=dict(state),
            decisions=_in_order(cohort, decisions, refusals),
        )

    def aggregator(
        self,
        metrics: Mapping[str, Mapping[str, float]],
        state: State,
        seed: int,
        reference: Tensor | None = None,
    ) -> Callable[[Tensor], Tensor]:
        """The merge alone, as a function of the matrix [n, d]: what a tuned attack tries out.

        Weights come from ``metrics``, one entry a row in the order of the rows, and are uniform
        when one lacks what they need.  No appeal and no server optimiser.
        """
        told = all(key in values for values in metrics.values() for key in self.fair.needs)

        def merged(matrix: Tensor) -> Tensor:
            n = matrix.shape[0]
            asked = torch.full((n,), 1 / n, dtype=torch.float64)
            if told:
                asked, _ = self.fair.weights(metrics, _part("fair", state))
            context = Context(torch.Generator().manual_seed(seed), reference)
            rows = Rows(matrix)
            return self._merge(rows, asked, _part("robust", state), context).result.update

        return merged

    def _merge(self, rows: Rows, asked: Tensor, state: State, context: Context) -> _Merge:
        weights = asked
        members = torch.eye(rows.count, dtype=torch.float64)
        clip = torch.ones(rows.count, dtype=torch.float64)
        mixed = False
        for stage in self.pre.values():
            step = stage.apply(rows, weights, context)
            rows, weights = step.rows, step.weights
            if step.mixing is not None:
                members, mixed = step.mixing @ members, True
            if step.clip is not None and not mixed:
                clip = clip * step.clip
        if self.client_level is not None:
            bounded = clip_to(rows, weights, self.client_level.clip)
            rows = bounded.rows
            if bounded.clip is not None:
                clip = clip * bounded.clip
        result = self.robust.apply(rows, weights, state, context)
        if result.clip is not None and not mixed:
            clip = clip * result.clip
        return _Merge(result, members.T @ result.shares, members, clip)

    def _judge(
        self, evaluate: Evaluate, params: Tensor, state: State, round: int, rounds: int
    ) -> Evaluate:
        """Public loss after the step that the server would really take with an update."""
        server = _part("server", state)

        def judge(update: Tensor) -> float:
            moved, _ = self.server.step(server, params, update, round, rounds)
            return evaluate(moved.sub_(params))

        return judge

    def _decide(
        self,
        names: Sequence[str],
        rows: Rows,
        asked: Tensor,
        merge: _Merge,
        verdict: Verdict | None,
        round: int,
    ) -> list[Decision]:
        scores = merge.scores_of_partners()
        given = merge.shares
        kept = [i for i in range(len(names)) if float(given[i]) >= 0.5 * float(asked[i]) > 0]
        decisions = []
        for i, name in enumerate(names):
            norm, factor = float(rows.norms[i]), float(merge.clip[i])
            score = None if scores is None else float(scores[i])
            clipped_to = norm * factor if factor < 1 - 1e-9 else None
            outcome, reason = explain(
                rule=self.robust.title,
                asked=float(asked[i]),
                given=float(given[i]),
                clipped_to=clipped_to,
                norm=norm,
                score_name=self.robust.score_name,
                score=score,
                accepted_scores=[] if scores is None else [float(scores[j]) for j in kept],
            )
            decision = Decision(
                partner=name,
                round=round,
                outcome=outcome,
                reason=reason,
                norm=norm,
                clipped_to=clipped_to,
                score_name=None if score is None else self.robust.score_name,
                score=score,
                weight_asked=float(asked[i]),
                weight_given=float(given[i]),
            )
            decisions.append(decision if verdict is None else _after_appeal(decision, verdict, i))
        return decisions


@dataclass(frozen=True)
class _Merge:
    """A rule's result in terms of the partners' own rows.

    ``members`` [k, n] says how much of each partner is in each row that the rule saw.
    """

    result: RuleResult
    shares: Tensor
    members: Tensor
    clip: Tensor = field(repr=False)

    def scores_of_partners(self) -> Tensor | None:
        """Each partner's score: of its own row, or of the bucket that it was put in."""
        scores = self.result.scores
        if scores is None or self.members.shape[0] == self.members.shape[1]:
            return scores
        return scores[self.members.argmax(0)]


def _after_appeal(decision: Decision, verdict: Verdict, row: int) -> Decision:
    given = float(verdict.shares[row])
    heard = verdict.appeals.get(row)
    if heard is None:
        return replace(decision, weight_given=given)
    losses = f"{heard['loss_without']:.5g} without it, {heard['loss_with']:.5g} with it"
    said = decision.reason.removesuffix(".")
    if not heard["readmitted"]:
        harmless = heard["loss_with"] <= heard["loss_without"]
        why = "the bound on readmissions was reached" if harmless else "it hurt on public data"
        reason = f"{said}; its appeal failed, {why} (loss {losses})."
        return replace(decision, weight_given=given, reason=reason, appeal=heard)
    factor, norm = float(verdict.factors[row]), decision.norm or 0.0
    return replace(
        decision,
        outcome="readmitted",
        clipped_to=norm * factor if factor < 1 - 1e-9 else None,
        weight_given=given,
        reason=f"{said}; readmitted on appeal at weight {given:.3g} (public loss {losses}).",
        appeal=heard,
    )


def _sound_rows(cohort: Cohort, round: int) -> tuple[list[str], Rows, list[Decision]]:
    """Rows with a finite, admissible norm; whatever slipped past screening is refused here."""
    rows = Rows(cohort.matrix)
    sound = torch.isfinite(rows.norms) & (rows.norms <= 1.001 * LARGEST_NORM)
    if bool(sound.all()):
        return list(cohort.partners), rows, []
    kept = sound.tolist()
    names = [name for name, ok in zip(cohort.partners, kept, strict=True) if ok]
    refusals = [
        refused(name, round, "the update contains NaN or Inf, or its norm exceeds 1e12")
        for name, ok in zip(cohort.partners, kept, strict=True)
        if not ok
    ]
    return names, Rows(cohort.matrix[sound]), refusals


def _in_order(cohort: Cohort, *decisions: Sequence[Decision]) -> list[Decision]:
    """One decision per row of the cohort, in its order."""
    by_partner = {decision.partner: decision for group in decisions for decision in group}
    return [by_partner[name] for name in cohort.partners]


def _assert_finite(vector: Tensor, round: int) -> None:
    # The sum is finite only if every entry is, unless huge entries overflow it: look then.
    if bool(torch.isfinite(vector.sum())) or bool(torch.isfinite(vector).all()):
        return
    raise FloatingPointError(f"round {round}: the merge is not finite; nothing was merged")


def _part(name: str, state: State) -> State:
    prefix = f"{name}/"
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _prefixed(name: str, state: State) -> State:
    return {f"{name}/{k}": v for k, v in state.items()}
