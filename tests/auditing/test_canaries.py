"""The one-run audit on a very small model: what it scores, and what it shows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from auditing.bounds import one_run_bound
from auditing.canaries import Gradients, Trial, audit, conjugate_gradients
from bench.privacy_audit import CLIP, main, small_network, small_rows
from client.accounting import calibrate
from client.training import Privacy
from common.config import TrainConfig
from common.device import Device

CPU = Device(torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    network = small_network(tmp_path_factory.mktemp("model"), 16, 24)
    rows, canaries = small_rows(16, 24, 8)
    settings = TrainConfig(physical_batch=128)
    privacy = Privacy(0.0, CLIP, "bookkeeping")
    return Trial(network, rows, canaries, settings, 1, 1.0, privacy, CPU)


def test_sums_and_products_are_those_of_the_clipped_gradients(trial: Trial) -> None:
    network, rows = trial.network, trial.canaries[:20]
    start = network.read()
    found = Gradients(trial, rows, start)
    explicit = []
    for row in rows:
        one = trial.examples.__getitems__([int(row)])
        loss = nn.functional.cross_entropy(trial.examples.logits(network, one), one.labels)
        parts = torch.autograd.grad(loss, list(network.trainable().values()))
        gradient = torch.cat([part.flatten() for part in parts])
        explicit.append(gradient * min(1.0, CLIP / float(gradient.norm())))
    matrix = torch.stack(explicit).double()
    weights = torch.randn(20, generator=torch.Generator().manual_seed(0)).double()
    total = found.total(weights)
    flat = torch.cat([value.flatten() for value in total.values()]).double()
    torch.testing.assert_close(flat, weights @ matrix, atol=1e-5, rtol=1e-4)
    products = found.products(total)
    torch.testing.assert_close(products, matrix @ flat, atol=1e-5, rtol=1e-4)


def test_conjugate_gradients_solve() -> None:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(30, 30, generator=generator).double()
    matrix = root @ root.T / 30 + torch.eye(30)
    right = torch.randn(30, generator=generator).double()
    solved = conjugate_gradients(lambda v: matrix @ v, right)
    assert (matrix @ solved - right).norm() <= 1.01e-4 * right.norm()


def test_without_noise_every_coin_is_read(trial: Trial) -> None:
    both = audit(trial, 8.0, 1e-6, 0.95, seed=1)
    found = both.epsilon_delta
    assert (found.correct, found.guesses, found.accuracy) == (384, 384, 1.0)
    assert found.epsilon_lower_bound == one_run_bound(384, 384, 384, 1e-6, 0.96)
    assert found.epsilon_lower_bound > 4.5
    assert both.f_dp.correct == both.f_dp.guesses
    assert both.f_dp.epsilon_lower_bound > 8


@pytest.mark.parametrize(
    ("steps", "rate", "clipping"), [(1, 1.0, "bookkeeping"), (3, 0.5, "hooks")]
)
def test_a_private_training_stays_below_its_epsilon(
    trial: Trial, steps: int, rate: float, clipping: str
) -> None:
    sigma = calibrate(1.0, 1e-6, rate, steps)
    private = replace(trial, steps=steps, rate=rate, privacy=Privacy(sigma, CLIP, clipping))
    for seed in range(3):
        found = audit(private, 1.0, 1e-6, 0.99, seed)
        assert found.epsilon_delta.epsilon_lower_bound <= 1.0
        assert found.f_dp.epsilon_lower_bound <= 1.0


def test_too_little_noise_is_caught(trial: Trial) -> None:
    """Noise for epsilon = 8 where epsilon = 0.5 is claimed."""
    sigma = calibrate(8.0, 1e-6, 1.0, 1)
    private = replace(trial, privacy=Privacy(sigma, CLIP, "bookkeeping"))
    found = audit(private, 0.5, 1e-6, 0.99, seed=2)
    assert found.epsilon_delta.epsilon_lower_bound > 0.5
    assert found.f_dp.epsilon_lower_bound > max(0.5, found.epsilon_delta.epsilon_lower_bound)


def test_bench_writes_its_table(tmp_path: Path) -> None:
    small = ["--width", "8", "--labels", "12", "--repeats", "2", "--bare", "1"]
    main(["--json", str(tmp_path / "a.json"), *small])
    table = json.loads((tmp_path / "a.json").read_text())
    assert table["at_most_claimed"] == 2
    assert table["confidence_of_each_bound"] == 0.975
    for row in table["private"]:
        assert row["epsilon_delta"]["confidence"] == row["f_dp"]["confidence"] == 0.975
