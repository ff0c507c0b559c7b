"""Messages that no honest coordinator sends: repeated, out of order, under another configuration.

What was released is measured from outside: the noise of each update from the tensors whose gradient
is exactly 0, the sampling rate from the number of rows that the partner states.  The epsilon that
it states must never be below the composition of those, nor may its lifetime budget be exceeded.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from client.accounting import Budget, Segment, epsilon
from client.ledger import Ledger
from client.metrics import COUNT_NOISE
from common import messages
from common.config import Config, from_json, to_json
from common.messages import Report
from tests.adversary.conftest import Coordinator, Reply, Row
from tests.adversary.crafted import Parameters

DELTA = 1e-4
LIFETIME = Budget(20.0, 1e-3)


@pytest.fixture
def here(coordinator: Callable[..., Coordinator], texts: list[Row]) -> Coordinator:
    """A partner of 400 rows; LoRA of rank 64, whose A is pure noise as long as B is 0."""
    made = coordinator()
    made.config.model.lora.r = 64
    made.rows(texts[:400], texts[400:600])
    return made


def start(here: Coordinator, number: int = 0) -> Parameters:
    """Another model for every number, always without a gradient in LoRA's A."""
    parameters = here.start()
    for name in parameters:
        if "lora_A" in name:
            parameters[name] = parameters[name] * (1 + number / 100)
    return parameters


def entries(here: Coordinator, kind: str = "reserve") -> list[Any]:
    with Ledger.open(here.folder / "state" / "ledger.sqlite", "clinic") as ledger:
        return [entry for entry in ledger.entries() if entry.kind == kind]


def trainings(here: Coordinator) -> list[Any]:
    return [entry for entry in entries(here) if "training steps" in entry.body["what"]]


def changed(config: Config, **settings: Any) -> Config:
    """A copy with other settings, as in `train__lr=2.0`."""
    copy = from_json(to_json(config))
    for key, value in settings.items():
        section, _, name = key.partition("__")
        assert hasattr(getattr(copy, section), name), key
        setattr(getattr(copy, section), name, value)
    return copy


def measured(config: Config, reply: Reply) -> Segment:
    """The mechanism behind an update of one step, as an observer sees it; noise rounded up."""
    noise = torch.cat([d.flatten().double() for n, d in reply.arrays.items() if "lora_A" in n])
    scale = config.train.batch_size / (config.privacy.max_grad_norm * config.train.lr)
    deviation = float(noise.std()) * scale * (1 + 4 / math.sqrt(2 * len(noise)))
    return Segment(deviation, config.train.batch_size / reply.report.examples, 1)


def spent(updates: list[Segment], delta: float = DELTA) -> float:
    """Epsilon of these updates and of the noisy number of rows."""
    return epsilon([*updates, Segment(COUNT_NOISE, 1.0, 1)], delta).value


def test_a_round_asked_again_and_again_is_counted_until_nothing_is_left(here: Coordinator) -> None:
    # One message may then cost all that the run may.
    here.config = changed(here.config, run__rounds=1)
    released: list[Segment] = []
    told = 0.0
    for number in range(50):
        reply = here.ask(parameters=start(here, number))
        assert len(trainings(here)) == len(released) + (not reply.refused)
        if reply.refused:
            break
        released.append(measured(here.config, reply))
        told, before = reply.report.epsilon, told
        assert told > before
        assert told >= spent(released)
    assert reply.refused
    assert 1 < len(released) < 50
    count = len(trainings(here))
    for number in (0, 60):
        again = here.ask(parameters=start(here, number))
        assert again.refused
        assert not again.arrays
    assert len(trainings(here)) == count
    # Another run gets what is left, if anything is, with as much noise as that takes.
    for run in ("another", "a third"):
        here.ask(parameters=start(here), run=run)
        with Ledger.open(here.folder / "state" / "ledger.sqlite", "clinic") as ledger:
            assert ledger.epsilon(LIFETIME.delta) <= LIFETIME.epsilon


def test_a_replayed_message_is_another_release(here: Coordinator) -> None:
    first, second = (here.ask(parameters=start(here)) for _ in range(2))
    assert len(trainings(here)) == 2
    releases = [entry.body["release"] for entry in trainings(here)]
    assert len(set(releases)) == 2
    assert second.report.epsilon > first.report.epsilon
    for name, delta in first.arrays.items():
        assert not torch.equal(delta, second.arrays[name])


@pytest.mark.parametrize("number", [0, -1, 3, 10**12])
def test_a_round_beyond_the_run_is_refused_and_costs_nothing(
    here: Coordinator, number: int
) -> None:
    assert not here.ask(messages.PREPARE).refused
    before = len(entries(here))
    reply = here.ask(parameters=start(here), number=number)
    assert reply.refused
    assert len(entries(here)) == before


def test_the_order_of_messages_changes_nothing_of_the_count(here: Coordinator) -> None:
    """The last round first, without `prepare`, metrics of a model before it was trained."""
    replies = [
        here.ask(messages.EVALUATE, start(here), number=2),
        here.ask(parameters=start(here), number=2),
        here.ask(messages.PREPARE),
        here.ask(parameters=start(here), number=1),
        here.ask(messages.EVALUATE, start(here), number=1),
    ]
    assert [reply.refused for reply in replies] == [False] * 5
    assert len(trainings(here)) == 2
    # One noisy number of rows in all of the run; one release of metrics for each round and one
    # more, and the fourth is withheld.
    assert len({reply.body.examples for reply in replies}) == 1
    assert sum("number of training rows" in entry.body["what"] for entry in entries(here)) == 1
    reports = [reply.report for reply in replies if isinstance(reply.body, Report)]
    assert [report.count_noise > 0 for report in reports] == [True, True, True, False]
    updates = [measured(here.config, reply) for reply in replies if reply.arrays]
    assert replies[-1].report.epsilon >= spent(updates)


def test_another_configuration_within_a_run_is_composed(here: Coordinator) -> None:
    """The same run's name, with settings that each would make the noise of a run smaller."""
    released: list[Segment] = []
    here.config = changed(here.config, run__rounds=16)
    for settings in (
        {},
        {"run__rounds": 1},
        {"privacy__epsilon": 12.0, "run__rounds": 1},
        {"train__batch_size": 20},
        {"privacy__max_grad_norm": 0.4, "train__lr": 0.5},
    ):
        config = changed(here.config, **settings)
        reply = here.ask(parameters=start(here), config=config)
        if reply.refused:
            continue
        released.append(measured(config, reply))
        assert len(trainings(here)) == len(released)
        assert reply.report.epsilon >= spent(released)
    assert len(released) >= 3
    with Ledger.open(here.folder / "state" / "ledger.sqlite", "clinic") as ledger:
        assert ledger.epsilon(LIFETIME.delta) <= LIFETIME.epsilon
        assert ledger.epsilon(LIFETIME.delta) >= spent(released, LIFETIME.delta)


@pytest.mark.parametrize(
    "settings",
    [
        {"privacy__metrics": "exact"},
        {"privacy__metrics": "exact", "privacy__mode": "none"},
        {"privacy__epsilon": 21.0},
        {"privacy__epsilon": 1e300},
        {"privacy__delta": 0.01},
        {"privacy__grad_sample_mode": "ghost"},
        {"train__batch_size": 100_000},
    ],
)
def test_what_the_policy_forbids_is_refused_within_a_run_too(
    here: Coordinator, settings: dict[str, Any]
) -> None:
    assert not here.ask(parameters=start(here)).refused
    before = len(trainings(here))
    reply = here.ask(parameters=start(here), number=2, config=changed(here.config, **settings))
    assert reply.refused
    assert not reply.arrays
    assert len(trainings(here)) == before


def test_parameters_of_another_form_cost_nothing(here: Coordinator) -> None:
    """Names, shapes and numbers are public, so that a refusal may tell of them."""
    assert not here.ask(messages.PREPARE).refused
    before = len(trainings(here))
    sound = start(here)
    name = next(iter(sound))
    wrong: list[Parameters] = [
        {key: value for key, value in sound.items() if key != name},
        {**sound, "more": torch.zeros(1)},
        {**sound, name: torch.zeros(3, 3)},
        {**sound, name: torch.full_like(sound[name], math.nan)},
        {**sound, name: torch.full(sound[name].shape, 1e300, dtype=torch.float64)},
    ]
    replies = [here.ask(parameters=parameters) for parameters in wrong]
    assert [reply.refused for reply in replies] == [True] * len(wrong)
    assert len(trainings(here)) == before
