"""The noise of a deployed partner cannot be computed from the noise that a coordinator sees.

Where a gradient is exactly 0 an update is pure noise: of LoRA's A in an honest first round, because
B starts at 0; of nearly every tensor with a crafted head of zeros.  From the output of a linear
generator such as the Mersenne twister all other noise of the message follows (`mersenne`).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch.utils._python_dispatch import TorchDispatchMode

from common import messages
from tests.adversary import mersenne
from tests.adversary.conftest import Coordinator, Reply, Row
from tests.adversary.crafted import headless
from tests.adversary.mersenne import Floats

# Beyond so many standard deviations nothing happens by chance in these tests.
CHANCE = 6.0


@pytest.fixture
def here(coordinator: Callable[..., Coordinator], texts: list[Row]) -> Coordinator:
    """A deployed partner and a LoRA of all layers with both factors: 36,864 numbers of A."""
    made = coordinator(allow_exact_metrics=True)
    made.config.privacy.metrics = "exact"
    made.config.model.layers, made.config.model.lora.r = 0, 64
    made.rows(texts[:200], texts[400:410])
    return made


def honest(here: Coordinator) -> dict[str, torch.Tensor]:
    return here.start()


def crafted(here: Coordinator) -> dict[str, torch.Tensor]:
    """No gradient reaches the adapters; zeros, so that not a bit is lost by adding the update."""
    start = headless(here.start())
    return {name: torch.zeros_like(t) if "lora" in name else t for name, t in start.items()}


def standardised(here: Coordinator, reply: Reply, sigma: float) -> dict[str, Floats]:
    """Pure noise as standard normal numbers; everything that this takes is public."""
    scale = -here.config.train.batch_size / (
        sigma * here.config.privacy.max_grad_norm * here.config.train.lr
    )
    assert reply.report.trained_examples > 0
    return {
        name: scale * delta.double().flatten().numpy()
        for name, delta in reply.arrays.items()
        if "lora_A" in name
    }


def pure_noise(here: Coordinator, craft: Callable[..., Any]) -> dict[str, Floats]:
    here.forget()
    sigma = here.ask(messages.PREPARE).body.noise_multiplier
    return standardised(here, here.ask(parameters=craft(here)), sigma)


def test_the_attack_finds_a_mersenne_twister() -> None:
    drawn = torch.normal(0.0, 1.0, (4096,), generator=torch.Generator().manual_seed(3))
    assert mersenne.agreement(drawn.double().numpy())[0] > 0.99
    other = np.random.Generator(np.random.Philox(3)).standard_normal(4096)
    share, count = mersenne.agreement(other)
    assert abs(share - 0.5) < CHANCE * 0.5 / count**0.5


@pytest.mark.parametrize("craft", [honest, crafted])
def test_noise_does_not_predict_noise(here: Coordinator, craft: Callable[..., Any]) -> None:
    noise = pure_noise(here, craft)
    assert sum(map(len, noise.values())) >= 20_000
    found = [mersenne.agreement(part) for part in noise.values()]
    # All of it as one stream, too: whatever is drawn between two tensors is few numbers.
    predictions = sum(count for _, count in found)
    share = sum(share * count for share, count in found) / predictions
    assert abs(share - 0.5) < CHANCE * 0.5 / predictions**0.5, (
        f"{share:.1%} of {predictions} bits of the noise follow from noise before them"
    )


def test_noise_is_normal_and_new_in_every_message(here: Coordinator) -> None:
    drawn = []
    for _ in range(2):
        # A seed that a coordinator, or a library, sets in the process changes nothing.
        torch.manual_seed(0)
        np.random.seed(0)
        random.seed(0)
        drawn.append(np.concatenate(list(pure_noise(here, crafted).values())))
    for noise in drawn:
        assert stats.kstest(noise, "norm").pvalue > 1e-6
        assert abs(noise.var() - 1) < 0.01 + CHANCE * (2 / len(noise)) ** 0.5
    for lag in (0, 1, 16, 624):
        first, second = drawn[0][: len(drawn[0]) - lag], drawn[1][lag:]
        for one, other in ((first, second), (first, drawn[0][lag:]) if lag else (first, second)):
            assert abs(np.corrcoef(one, other)[0, 1]) < CHANCE / len(one) ** 0.5


class Draws(TorchDispatchMode):
    """Notes every operation of torch that takes random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func.overloadpacket.__name__
        # What is marked as random and takes no number of anybody's: attention, dropout of nothing,
        # and the seed that a DataLoader keeps for workers that it does not have.
        unused = (
            "attention" in name
            or (name.endswith("dropout") and args[1] == 0)
            or (name == "random_" and args[0].dim() == 0)
        )
        if torch.Tag.nondeterministic_seeded in func.tags and not unused:
            self.seen.add(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("metrics", ["exact", "private"])
def test_no_generator_of_a_library_draws_anything(
    here: Coordinator, monkeypatch: pytest.MonkeyPatch, metrics: str
) -> None:
    """Batches, noise and noisy counts; LoRA's start, which is public, is drawn when it is built."""
    here.config.privacy.metrics = metrics
    here.keep_open()
    start = here.start()
    used: list[str] = []

    def noting(name: str, sound: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **kwargs: Any) -> Any:
            used.append(name)
            return sound(*args, **kwargs)

        return noted

    for module, names in (
        (np.random, ("default_rng", "RandomState", "standard_normal", "normal", "random", "rand")),
        (random, ("Random", "SystemRandom", "gauss", "random", "normalvariate", "getrandbits")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, noting(name, getattr(module, name)))
    numpy_state, state = np.random.get_state()[1].tolist(), random.getstate()
    with Draws() as draws:
        for kind in (messages.PREPARE, messages.TRAIN, messages.EVALUATE):
            assert not here.ask(kind, start).refused
    assert draws.seen == set()
    assert used == []
    assert numpy_state == np.random.get_state()[1].tolist()
    assert state == random.getstate()
