"""What a partner does with each kind of message."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version

import numpy as np
import torch
from flwr.app import RecordDict
from torch import Tensor

from client import personal
from client.accounting import Segment, calibrate
from client.division import TRAIN, part
from client.exact import note_exact
from client.grad_sample_mode import choose
from client.ledger import Ledger, Spend
from client.lifetime import noise_within
from client.metrics import (
    COUNT_NOISE,
    Metrics,
    count_segment,
    exact,
    release_metrics,
    training_rows,
)
from client.partner import group_values
from client.policy import PolicyRequest
from client.session import Session
from client.training import LocalTraining, Privacy, Proximal, Trained
from client.training import train as train_locally
from client.wiring import cut_off
from common import messages
from common.compression import encode
from common.errors import described
from common.evaluation import evaluate as evaluate_on
from common.files import sha256_text
from common.messages import Prepared, Report, Request
from common.randomness import Stream
from common.refusals import Reason, Refused
from common.seeds import torch_generator

log = logging.getLogger(__name__)


def check_request(session: Session) -> None:
    """Check the run against this partner's policy, before anything is trained.

    Raises UserError with the reason.
    """
    config, partner = session.config, session.partner
    partner.policy.check(
        PolicyRequest(
            dataset=partner.name,
            task=config.task,
            text=(config.data.columns.text,),
            label=tuple(filter(None, [config.data.columns.label])),
            groups=tuple(config.data.columns.groups),
            private=config.private,
            exact_metrics=not config.private_metrics,
            epsilon=max(config.privacy.epsilon, config.metrics_epsilon),
            delta=config.privacy.delta,
            personal=config.train.ditto_lambda > 0,
        )
    )
    if partner.seed is None and config.private and config.privacy.grad_sample_mode == "ghost":
        raise Refused(
            Reason.CLIPPING,
            "privacy.grad_sample_mode: ghost is for simulations only, because crafted parameters "
            "could make the norm of a gradient come out too small or infinite; use bookkeeping, "
            "hooks or auto",
            "privacy.grad_sample_mode",
        )
    if config.private_metrics and set(config.data.columns.groups) - set(config.data.group_values):
        raise Refused(
            Reason.GROUP_VALUES,
            "data.group_values: this partner's file does not declare its group values",
            "data.group_values",
        )


def admit(session: Session, run: str) -> None:
    """Before anything of a message is computed: is it allowed, and is what leaves exactly on disk?

    Raises UserError with the reason.
    """
    check_request(session)
    note_exact(session.config, session.partner, run)


def check_round(session: Session, request: Request) -> None:
    """Refuse a round that the run does not have: the noise was solved for `run.rounds` of them.

    Raises UserError with the reason.
    """
    if not 1 <= request.round <= session.config.run.rounds:
        raise Refused(Reason.ROUND, f"round {request.round} is not one of the run's rounds")


def check_parameters(parameters: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Refuse parameters that are not those of this run's model, or not numbers.

    `own` are the model's own: names, shapes and dtypes must be the same.  A number that is finite
    in another dtype (1e300 in float64) is infinite in the model's.

    Raises UserError naming a tensor of the model, never one of the request.
    """
    if parameters.keys() != own.keys():
        raise Refused(
            Reason.PARAMETERS, "the incoming model has other tensors than this run's model"
        )
    for name, tensor in own.items():
        given = parameters[name]
        if given.shape != tensor.shape or given.dtype != tensor.dtype:
            raise Refused(
                Reason.PARAMETERS, f"the incoming model has another shape or dtype: {name}"
            )
        if not bool(torch.isfinite(given).all()):
            raise Refused(Reason.PARAMETERS, f"the incoming model is not finite: {name}")
        if name.endswith("spread") and not bool((given > 0).all()):
            raise Refused(
                Reason.PARAMETERS, f"the incoming model is unusable: {name} must be above 0"
            )


def sample_rate(session: Session, run: str) -> float:
    """The probability with which each training example enters a batch.

    Raises UserError when there are too few examples.
    """
    return session.config.train.batch_size / training_rows(session.config, session.partner, run)


@contextmanager
def unseen(what: str) -> Iterator[None]:
    """Log an error of what follows at the partner alone: that it failed can depend on examples."""
    try:
        yield
    except Exception as error:
        log.error("%s: %s", what, described(error))


@contextmanager
def spending(session: Session) -> Iterator[Ledger | None]:
    """The partner's ledger, opened once for a message's training; None without privacy.

    What leaves without any noise is reserved there too: see `client/exact.py`.
    """
    if not session.config.private:
        yield None
        return
    with Ledger.open(session.partner.ledger, session.partner.name) as ledger:
        yield ledger


def noise_multiplier(session: Session, run: str, ledger: Ledger | None) -> float:
    """Noise for the worst case, in which this partner is sampled in every round of the run.

    Solved for the run's own epsilon and for what the data set's lifetime budget leaves after
    all other runs; the larger noise is used.  0 without privacy.
    """
    config = session.config
    if ledger is None:
        return 0.0
    privacy, steps = config.privacy, config.run.rounds * config.train.local_steps
    rate = sample_rate(session, run)
    count = count_segment(config)
    others = tuple(ledger.composed_with(part(config, TRAIN), other_than=run))
    name, limit = session.partner.name, session.partner.policy.budget
    own = calibrate(privacy.epsilon, privacy.delta, rate, steps, count, dataset=name)
    if not others and limit.epsilon >= privacy.epsilon and limit.delta / 2 >= privacy.delta:
        return own
    before, planned = (*others, *count), not others
    left = noise_within(limit, rate, steps, before, planned=planned, dataset=name)
    return max(own, left)


def prepare(session: Session, request: Request, content: RecordDict) -> RecordDict:
    """Check everything that could refuse later, and say who this is."""
    admit(session, request.run)
    if untrained := cut_off(session.network):
        raise Refused(
            Reason.MODEL_PARTS,
            f"model.trainable: no gradient reaches {untrained[0]}",
            "model.trainable",
        )
    with unseen("frozen layers of validation examples could not be computed"):
        # Every round measures them.
        session.validation.ready(np.arange(len(session.validation)))
    with spending(session) as ledger:
        return messages.pack(
            Prepared(
                partner=session.partner.name,
                fingerprint=session.network.fingerprint,
                version=version("fedaccord"),
                examples=training_rows(session.config, session.partner, request.run),
                noise_multiplier=noise_multiplier(session, request.run, ledger),
            )
        )


def evaluate(session: Session, request: Request, content: RecordDict) -> RecordDict:
    """Evaluate the incoming global model on the validation examples."""
    admit(session, request.run)
    parameters = messages.arrays(content)
    check_parameters(parameters, {**session.network.read(), **session.network.constants()})
    session.network.write(parameters)
    step = f"evaluate/{digest(parameters)}"
    measured = _measure(session, request.run, step)
    with spending(session) as ledger:
        report = _report(session, measured, request.run, ledger)
    if session.config.train.ditto_lambda > 0:
        with unseen("the personal model could not be delivered"):
            personal.deliver(session, request, parameters)
    return messages.pack(report)


def train(session: Session, request: Request, content: RecordDict) -> RecordDict:
    """Evaluate the incoming model, reserve the spend, train, commit, reply with the change."""
    check_request(session)
    check_round(session, request)
    start = messages.arrays(content)
    check_parameters(start, {**session.network.read(), **session.network.constants()})
    note_exact(session.config, session.partner, request.run)
    session.network.write(start)
    rate = sample_rate(session, request.run)
    with spending(session) as ledger:
        reply = _trained(session, request, start, rate, ledger)
    if session.config.train.ditto_lambda > 0:
        with unseen("the personal model could not be trained"):
            personal.improve(session, request, start, rate)
    return reply


def _trained(
    session: Session,
    request: Request,
    start: Mapping[str, Tensor],
    rate: float,
    ledger: Ledger | None,
) -> RecordDict:
    """The reply to a train message; what it spends is in the ledger before the first gradient."""
    config, partner = session.config, session.partner
    sigma = noise_multiplier(session, request.run, ledger)
    step = f"{request.round}/{digest(start)}"
    measured = _measure(session, request.run, f"round {step}")
    sampling, noise = streams(session, step)
    privacy = _privacy(session, sigma)
    rounding = torch_generator(config.run.seed, "rounding", partner.name, step)

    def steps() -> RecordDict:
        trained = train_locally(
            session.network,
            session.train,
            start,
            LocalTraining(
                config.train,
                rate,
                privacy,
                expected_batch_size=float(config.train.batch_size),
                proximal=Proximal(config.train.prox_mu, start),
            ),
            sampling,
            noise,
            session.device,
        )
        report = _report(session, measured, request.run, ledger, trained)
        # After clipping and noise: post-processing, which costs no privacy.
        return messages.pack(report, encode(trained.delta, config.train.compression, rounding))

    if ledger is None:
        return steps()
    # In simulation the noise is a function of the seed, so repeating a round after a crash
    # releases the very same numbers and costs nothing.  In deployment every release is new.
    nonce = "" if partner.seed is not None else f"/{secrets.token_hex(16)}"
    reservation = ledger.reserve(
        Spend(
            run=request.run,
            release=f"{request.run}/{step}{nonce}",
            segments=[Segment(sigma, rate, config.train.local_steps)],
            delta=config.privacy.delta,
            what=f"round {request.round}: {config.train.local_steps} training steps",
            part=part(config, TRAIN),
        ),
        partner.policy.budget,
    )
    reply = steps()
    # It is spent either way: a reservation counts whether it was committed or not.
    with unseen("the spend could not be committed"):
        ledger.commit(reservation)
    return reply


def _privacy(session: Session, sigma: float) -> Privacy | None:
    """How this message's gradients are made private; None without noise, when privacy is off."""
    if not sigma > 0:
        return None
    config, privacy = session.config, session.config.privacy
    return choose(
        session.network,
        session.train,
        config.model.max_length,
        config.train,
        Privacy(sigma, privacy.max_grad_norm, privacy.grad_sample_mode, privacy.clipping),
        session.device,
        session.partner.cache,
    )


def streams(session: Session, step: str) -> tuple[Stream, Stream]:
    """Streams for batch sampling and for noise; both must be secret for the guarantee to hold.

    A simulation keys them by configuration, round and incoming model: the same noise is never
    added to two different gradients, whose difference would then be exact.  Without privacy by the
    round alone, so that a difference in the last bit does not become other batches.
    """
    private = session.config.private
    key = f"{session.identity}/{step}" if private else step.split("/")[0]
    return session.partner.streams("batches", key), session.partner.streams("noise", key)


def digest(parameters: Mapping[str, Tensor]) -> str:
    """Identity of a model."""
    return sha256_text(*(parameters[name].numpy().tobytes() for name in sorted(parameters)))[:32]


def _measure(session: Session, run: str, step: str) -> Metrics:
    """The metrics that may leave, of the model as it stands, on the validation examples."""
    # The table has the columns of the partner's own file; only those that the run asks for leave.
    requested = session.config.data.columns.groups
    groups = {n: v for n, v in group_values(session.partner.validation).items() if n in requested}
    measured = evaluate_on(
        session.network, session.validation, groups, session.device, on_error=_unmeasured
    )
    if not session.config.private_metrics:
        return exact(measured)
    return release_metrics(session.config, session.partner, measured, run, step)


def _unmeasured(error: Exception) -> None:
    log.error("validation examples could not be measured: %s", described(error))


def _report(
    session: Session,
    measured: Metrics,
    run: str,
    ledger: Ledger | None,
    trained: Trained | None = None,
) -> Report:
    delta = session.config.privacy.delta
    private = session.config.private_metrics
    return Report(
        partner=session.partner.name,
        confusion=measured.confusion.tolist(),
        groups={name: counts.tolist() for name, counts in measured.groups.items()},
        loss=measured.loss,
        examples=training_rows(session.config, session.partner, run),
        epsilon=0.0 if ledger is None else ledger.epsilon(delta, run, None if private else TRAIN),
        delta=0.0 if ledger is None else delta,
        trained_examples=0.0 if trained is None else trained.examples,
        # The duration of training depends on the sizes of its batches, which are secret.
        train_seconds=0.0 if private or trained is None else trained.seconds,
        frozen_seconds=0.0 if private or trained is None else trained.frozen_seconds,
        count_noise=measured.noise,
        examples_noise=COUNT_NOISE if private else 0.0,
        sums=[] if measured.sums is None else measured.sums.tolist(),
    )
