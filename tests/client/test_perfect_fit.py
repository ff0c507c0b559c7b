"""Examples fitted perfectly have gradients of exactly zero, and no partner is refused for it."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from client import handlers
from client.policy import Policy
from client.session import Session
from common import messages
from common.compression import decode
from common.config import config_hash, validate
from common.examples.prepare import prepare
from common.messages import Report, Request
from strategies.screening import Screening
from strategies.updates import Layout, Reply
from tests.client.test_metrics import CPU, session  # noqa: F401


def fitted(here: Session, mode: str, grad_sample_mode: str, compression: str) -> Session:
    """The session with examples of one class alone, trained in `mode`."""
    config = deepcopy(here.config)
    config.privacy.mode, config.privacy.grad_sample_mode = mode, grad_sample_mode
    config.privacy.metrics = "private" if mode == "dp" else "exact"
    config.train.local_steps, config.train.compression = 2, compression
    rows = here.partner.train
    ones = np.ones(len(rows), dtype=np.int64)
    examples = prepare(rows.texts, ones, here.network, config.model, CPU, here.partner.cache)
    partner = replace(here.partner, policy=Policy.permissive(20.0, 1e-3))
    config = validate(config)
    return replace(
        here, config=config, identity=config_hash(config), partner=partner, train=examples
    )


def certain(here: Session) -> dict[str, Tensor]:
    """A model that says the second class, so surely that its loss is exactly 0."""
    parameters = {**here.network.read(), **here.network.constants()}
    biases = [name for name in parameters if name.endswith("classifier.bias")]
    assert len(biases) == 1, sorted(parameters)
    return {**parameters, biases[0]: torch.tensor([-1e4, 1e4])}


@pytest.mark.parametrize(
    ("mode", "grad_sample_mode", "compression"),
    [
        ("none", "hooks", "float32"),
        ("none", "hooks", "float16"),
        ("none", "hooks", "int8"),
        ("dp", "hooks", "float32"),
        ("dp", "bookkeeping", "float32"),
        ("dp", "auto", "float32"),
    ],
)
def test_nobody_is_refused_for_fitting_well(
    session: Callable[..., Session],  # noqa: F811
    mode: str,
    grad_sample_mode: str,
    compression: str,
) -> None:
    here = fitted(session(), mode, grad_sample_mode, compression)
    start = certain(here)
    prepared = handlers.prepare(here, Request("run", 0), messages.pack(Request("run", 0), start))
    assert isinstance(messages.unpack(prepared), messages.Prepared)
    content = messages.pack(Request("run", 1), start)
    reply = handlers.train(here, Request("run", 1), content)
    report = messages.unpack(reply)
    assert isinstance(report, Report)
    delta = decode(messages.arrays(reply), compression)
    moved = torch.cat([change.flatten() for change in delta.values()])
    # Plain training does not move at all; private training moves by its noise alone.
    assert bool(moved.any()) == (mode == "dp")
    layout = Layout.of(here.network.read())
    assert Screening().check(Reply("clinic", delta, {"loss": report.loss}), layout) is None
