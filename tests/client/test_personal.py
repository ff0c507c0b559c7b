"""FedProx against its definition; Ditto's model stays where it is and is worth having."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from flwr.app import RecordDict
from torch import nn
from transformers import pipeline

from client import handlers
from client.ledger import Ledger
from client.policy import Policy
from client.session import Session
from client.training import LocalTraining, Privacy, Proximal, train
from common import messages
from common.config import Config, TrainConfig, validate
from common.errors import UserError
from common.messages import Report
from common.refusals import Reason, Refused
from simulation.seeded_streams import SeededStream
from tests.client.test_metrics import model, session  # noqa: F401
from tests.client.test_training import FP32, make_examples, network

Reviews = tuple[list[str], list[int]]


def stream(seed: int = 0) -> SeededStream:
    return SeededStream(seed)


def test_proximal_steps_equal_their_definition(
    tiny_bert: Path, reviews: Reviews, tmp_path: Path
) -> None:
    net, config = network(tiny_bert, trainable="last_k")
    rows = make_examples(net, config, reviews, tmp_path, 40)
    start = net.read()
    steps = TrainConfig(local_steps=4, lr=0.3)
    found = train(
        net,
        rows,
        start,
        LocalTraining(steps, 1.0, None, proximal=Proximal(0.7, start)),
        stream(),
        stream(),
        FP32,
    )
    net.write(start)
    net.trained.eval()
    batch = rows.__getitems__(list(range(40)))
    parameters = net.trainable()
    for _ in range(4):
        loss = nn.functional.cross_entropy(rows.logits(net, batch), batch.labels)
        loss = loss + 0.35 * sum(((p - start[n]) ** 2).sum() for n, p in parameters.items())
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        with torch.no_grad():
            for p, gradient in zip(parameters.values(), gradients, strict=True):
                p -= 0.3 * gradient
    for name, value in net.read().items():
        torch.testing.assert_close(found.delta[name], value - start[name], rtol=1e-3, atol=1e-6)


def test_the_proximal_term_comes_after_clipping_and_noise(
    tiny_bert: Path, reviews: Reviews, tmp_path: Path
) -> None:
    net, config = network(tiny_bert, trainable="last_k")
    rows = make_examples(net, config, reviews, tmp_path, 40)
    start = net.read()
    away = {name: value + 100.0 for name, value in start.items()}
    deltas = [
        train(
            *(net, rows, start),
            LocalTraining(
                TrainConfig(lr=1.0),
                0.5,
                Privacy(1.0, 0.05, "hooks"),
                proximal=Proximal(mu, away),
            ),
            *(stream(1), stream(2), FP32),
        ).delta
        for mu in (0.0, 0.01)
    ]
    for name in start:
        # Not clipped to 0.05, and the noise is the same.
        pulled = torch.full_like(start[name], 1.0)
        torch.testing.assert_close(deltas[1][name] - deltas[0][name], pulled, rtol=1e-3, atol=1e-4)


def test_one_step_cannot_be_drawn_back() -> None:
    config = Config()
    config.train.prox_mu = 0.1
    with pytest.raises(UserError, match=r"train\.prox_mu: has no effect with train\.local_steps=1"):
        validate(config)


def with_personal(here: Session, mu: float) -> Session:
    train_config = replace(
        here.config.train, ditto_lambda=mu, optimizer="adam", lr=0.005, local_steps=40
    )
    data = replace(here.config.data, labels=["bad", "good"])
    config = replace(here.config, train=train_config, data=data)
    return replace(here, config=config, partner=replace(here.partner, seed=3))


def reply(here: Session, number: int) -> tuple[Report, RecordDict]:
    content = handlers.train(here, *model(here, number))
    report = messages.unpack(content)
    assert isinstance(report, Report)
    return report, content


def test_nothing_of_the_personal_model_leaves(
    session: Callable[..., Session],  # noqa: F811
    tmp_path: Path,
) -> None:
    here = session(policy=Policy.permissive(20.0, 1e-3))
    start = {**here.network.read(), **here.network.constants()}
    answers, ledgers = [], []
    for mu in (0.0, 0.1):
        one = with_personal(here, mu)
        one = replace(one, partner=replace(one.partner, directory=tmp_path / f"p{mu}"))
        here.network.write(start)
        _, content = reply(one, 1)
        answers.append(set(messages.arrays(content)))
        with Ledger.open(one.partner.ledger, "clinic") as ledger:
            ledgers.append(len(ledger.entries()))
    assert answers[0] == answers[1] == set(here.network.read())
    assert ledgers[0] == ledgers[1]
    assert not list((tmp_path / "p0.0").glob("personal"))
    assert list((tmp_path / "p0.1").glob("personal/*/parameters.safetensors"))


def test_a_personal_model_is_refused_unless_the_policy_allows_it(
    session: Callable[..., Session],  # noqa: F811
) -> None:
    """Whatever else it allows: training without noise that leaves is another matter."""
    policy = replace(Policy.permissive(20.0, 1e-3), allow_personal_models=False)
    here = with_personal(session(policy=policy), 0.1)
    for message in (handlers.prepare, handlers.train, handlers.evaluate):
        with pytest.raises(Refused) as caught:
            message(here, *model(here, 1))
        assert (caught.value.reason, caught.value.key) == (Reason.PERSONAL, "train.ditto_lambda")
    assert not list(here.partner.directory.glob("personal"))


def test_the_personal_model_is_trained_once_a_round_and_delivered(
    session: Callable[..., Session],  # noqa: F811
) -> None:
    here = with_personal(session(policy=Policy.permissive(20.0, 1e-3)), 0.001)
    here = replace(here, config=replace(here.config, run=replace(here.config.run, rounds=30)))
    start = {**here.network.read(), **here.network.constants()}
    states = []
    for number in (1, 1, 2, 3, 4, 5):
        here.network.write(start)
        reply(here, number)
        path = next((here.partner.directory / "personal").glob("*/parameters.safetensors"))
        states.append(path.read_bytes())
    assert states[0] == states[1] != states[2]
    here.network.write(start)
    request, content = model(here, 5)
    text = json.dumps(asdict(messages.unpack(handlers.evaluate(here, request, content))))
    assert "personal" not in text
    found = json.loads((path.parent / "personal.json").read_text())
    assert found["round"] == 5
    assert found["personal"]["accuracy"] > 0.75 > found["global"]["accuracy"]
    classify = pipeline(
        "text-classification", model=str(path.parent / "model"), trust_remote_code=True
    )
    assert classify("the film was great superb lovely fine")[0]["label"] == "good"
