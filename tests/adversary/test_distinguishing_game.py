"""The game that differential privacy is about: which of two neighbouring data sets is it?

The attacker knows all rows, chooses the parameters and sees the reply.  The parameters are crafted
so that its task is the easiest there is: rows of one label have a gradient of exactly 0, the secret
row of the other label has one of the clipping norm, and every row is in the batch.  The best
statistic is then the update's projection on the direction of that gradient, with a trade-off known
exactly: N(0, z^2) against N(1, z^2) for noise multiplier z.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from client import handlers
from client.session import Session
from common import messages
from common.messages import Report
from tests.adversary.conftest import Coordinator, Reply, Row
from tests.adversary.crafted import Parameters, saturated
from tests.adversary.mersenne import Floats

MESSAGES = int(os.environ.get("FEDACCORD_ADVERSARY_MESSAGES", "80"))
ROWS, DELTA = 24, 1e-2
# Chance of a false alarm in each comparison.
ALARM = 1e-5


def told_apart(without: Floats, with_row: Floats, epsilon: float) -> list[str]:
    """Where an attacker's statistic beats (epsilon, DELTA): both directions, all thresholds.

    The attacker says "with" above a threshold t.  Privacy bounds P(above | with) by exp(epsilon)
    P(above | without) + DELTA, and the same with the two exchanged.  A bound is broken where the
    lower end of one share's confidence interval exceeds it at the upper end of the other's.
    """
    broken = []
    for threshold in np.quantile(np.concatenate([without, with_row]), np.linspace(0.02, 0.98, 25)):
        shares = [interval(int((x > threshold).sum()), len(x)) for x in (without, with_row)]
        others = [(1 - high, 1 - low) for low, high in shares]
        for less, more in ((shares[0], shares[1]), (others[1], others[0])):
            if more[0] > math.exp(epsilon) * less[1] + DELTA:
                broken.append(f"{more[0]:.3f} > e^{epsilon:.2f} {less[1]:.3f} + {DELTA}")
    return broken


def interval(hits: int, of: int) -> tuple[float, float]:
    """Clopper and Pearson's confidence interval, wrong with a chance of ALARM."""
    low = stats.beta.ppf(ALARM / 2, hits, of - hits + 1) if hits else 0.0
    high = stats.beta.ppf(1 - ALARM / 2, hits + 1, of - hits) if hits < of else 1.0
    return float(low), float(high)


class Game:
    """Asks the partner that has `without` or `with_row` and that was never asked before."""

    def __init__(self, here: Coordinator, texts: list[Row], folder: Path) -> None:
        self.here, self.folder, self.asked = here, folder, 0
        usual = [(text, "bad") for text, _ in texts[: ROWS - 1]]
        self.last = (texts[ROWS][0], "bad"), (texts[ROWS][0], "good")
        self.sessions = [self._open([*usual, last]) for last in self.last]

    def _open(self, train: list[Row]) -> Session:
        # For metrics the same rows are validated with.
        self.here.rows(train, train)
        return self.here.keep_open()

    def reply(self, kind: str, secret: bool, parameters: Parameters) -> Reply:
        opened = self.sessions[secret]
        self.asked += 1
        partner = replace(opened.partner, directory=self.folder / str(self.asked))
        self.here._opened = replace(opened, partner=partner)
        return self.here.ask(kind, parameters)


@pytest.fixture
def game(coordinator: Callable[..., Coordinator], texts: list[Row], tmp_path: Path) -> Game:
    policy = {"lifetime": {"epsilon": 1e4, "delta": 0.5}}
    here = coordinator(allow_exact_metrics=True, **policy)
    here.config.privacy.metrics = "exact"
    here.config.privacy.epsilon, here.config.privacy.delta = 1.0, DELTA
    here.config.train.batch_size, here.config.run.rounds = ROWS, 1
    return Game(here, texts, tmp_path / "partners")


def gradient(here: Coordinator, row: Row, parameters: Parameters) -> dict[str, Tensor]:
    """The gradient of one row, slowly and by autograd alone."""
    network = here.network
    network.write(parameters)
    inputs = network.tokenizer(row[0], truncation=True, return_tensors="pt")
    logits = network.logits(inputs["input_ids"], inputs["attention_mask"])
    label = torch.tensor([here.config.data.labels.index(row[1])])
    loss = torch.nn.functional.cross_entropy(logits, label)
    names = network.trainable()
    found = torch.autograd.grad(loss, list(names.values()), allow_unused=True)
    zeros = [torch.zeros_like(p) for p in names.values()]
    pairs = zip(names, found, zeros, strict=True)
    return {name: zero if g is None else g for name, g, zero in pairs}


def projections(game: Game, count: int = MESSAGES) -> tuple[Floats, Floats, float]:
    """The attacker's statistic, in units of the clipping norm, without and with the secret row."""
    parameters = saturated(game.here.start())
    config = game.here.config
    usual, secret = (gradient(game.here, row, parameters) for row in game.last)
    assert not any(bool(g.any()) for g in usual.values())
    norm = math.sqrt(sum(float(g.double().square().sum()) for g in secret.values()))
    assert norm > config.privacy.max_grad_norm
    shares = np.empty((2, count))
    epsilon = 0.0
    for place in range(2 * count):
        reply = game.reply(messages.TRAIN, bool(place % 2), parameters)
        sums = {n: -delta.double() * config.train.batch_size for n, delta in reply.arrays.items()}
        product = sum(float((sums[n] * g).sum()) for n, g in secret.items()) / norm
        shares[place % 2, place // 2] = product / config.privacy.max_grad_norm
        epsilon = reply.report.epsilon
    return shares[0], shares[1], epsilon


def test_an_update_tells_no_more_than_epsilon(game: Game) -> None:
    sigma = game.reply(messages.PREPARE, False, game.here.start()).body.noise_multiplier
    without, with_row, epsilon = projections(game)
    assert 0.9 < epsilon <= 1.0
    assert told_apart(without, with_row, epsilon) == []
    # The attack is the best one: it sees what is there, in noise of the stated size.
    assert np.std(without) == pytest.approx(sigma, rel=6 / math.sqrt(2 * MESSAGES))
    apart = np.mean(with_row) - np.mean(without)
    assert abs(apart - 1.0) < 5 * sigma * math.sqrt(2 / MESSAGES)
    # No threshold is right more often than the exact trade-off allows.
    best = stats.norm.cdf(0.5 / sigma)
    right = int((with_row > 0.5).sum() + (without <= 0.5).sum())
    low, high = interval(right, 2 * MESSAGES)
    assert low <= best <= high


def test_the_game_is_won_without_noise(game: Game, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = handlers._privacy

    def silent(session: Session, sigma: float) -> object:
        privacy = sound(session, sigma)
        assert privacy is not None
        return replace(privacy, noise_multiplier=sigma / 1e6)

    monkeypatch.setattr(handlers, "_privacy", silent)
    without, with_row, epsilon = projections(game, 40)
    assert np.max(without) < 0.01 < 0.9 < np.min(with_row)
    assert told_apart(without, with_row, epsilon) != []


def test_metrics_tell_no_more_than_epsilon(game: Game) -> None:
    """By the count of the cell that the secret row is in."""
    here, config = game.here, game.here.config
    config.privacy.metrics = "private"
    # Nothing is trained: so few rows are enough, whatever the noisy count of them is.
    config.train.batch_size, config.run.rounds = 1, 1
    game.sessions = [replace(s, config=config) for s in game.sessions]
    parameters = saturated(here.start())
    cells: list[list[float]] = [[], []]
    epsilon = 0.0
    for place in range(MESSAGES):
        reply = game.reply(messages.EVALUATE, bool(place % 2), parameters)
        if not isinstance(reply.body, Report):
            # Too few rows by the noisy count.
            continue
        cells[place % 2].append(reply.report.confusion[1][0])
        epsilon = max(epsilon, reply.report.epsilon)
    without, with_row = np.array(cells[0]), np.array(cells[1])
    assert min(len(without), len(with_row)) > MESSAGES / 4
    assert told_apart(without, with_row, epsilon) == []
    assert np.std(without) == pytest.approx(reply_noise(game, parameters), rel=0.5)


def reply_noise(game: Game, parameters: Parameters) -> float:
    """The standard deviation of counts that the partner states."""
    while not isinstance((reply := game.reply(messages.EVALUATE, False, parameters)).body, Report):
        pass
    return reply.report.count_noise
