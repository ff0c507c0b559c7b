"""One training with many canaries: what does it show of who took part?

The audited program is the partner's own `client.training.train`.  Each canary is a row that is in
or out by a fair coin.  The auditor is the strongest that the guarantee speaks of: a coordinator who
sends the same parameters in every round, reads every update, and knows all rows and everything but
the coins and the noise.

Scores: with g_i the gradient of canary i at those parameters and S the sum of all updates, before
division, canary i adds about its clipped gradient to S.  From S the auditor takes the mean of what
it would be with all canaries and with none (both computed without noise), and scores canary i by
<g_i, S> / |g_i|, a directional derivative of its loss.  A positive score is guessed "in", a
negative one "out", and those nearest to zero are left unanswered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from client.auditing.bounds import one_run_bound
from client.bookkeeping import BookkeepingModule
from client.training import Forward, Privacy, train
from common.config import TrainConfig
from common.device import Device
from common.features import Batch, Examples, Ints
from common.model import Network

# How many of the canaries are guessed, and the share of the error probability that each of these
# attempts may use up; the best attempt counts.
ATTEMPTS = {1.0: 0.8, 0.25: 0.1, 0.05: 0.1}
# Length of the step along which the directional derivative is taken, both ways.
PROBE = 1e-2


@dataclass(frozen=True)
class Chosen:
    """Some of the rows of `examples`."""

    examples: Examples
    rows: Ints

    @property
    def lengths(self) -> Ints:
        """Tokens per row."""
        return self.examples.lengths[self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        return self.examples.__getitems__(self.rows[np.asarray(indices, dtype=np.int64)].tolist())

    def logits(self, network: Network, batch: Batch) -> Tensor:
        """Run the part of the network that these rows still need."""
        return self.examples.logits(network, batch)


def made_up_texts(network: Network, length: int, count: int, seed: int) -> tuple[list[str], Ints]:
    """`count` texts of random words of the vocabulary, about half of `length` tokens long, and
    random labels [count]: rows that resemble neither each other nor anybody's."""
    generator = np.random.default_rng([seed, 2])
    special = set(network.tokenizer.all_special_ids)
    words = [i for i in range(len(network.tokenizer)) if i not in special]
    chosen = generator.choice(words, (count, max(length // 2, 2)))
    texts = [str(network.tokenizer.decode(row.tolist())) for row in chosen]
    return texts, generator.integers(0, len(network.labels), count)


@dataclass(frozen=True)
class CanaryAudit:
    """What the guesses came to; `epsilon_lower_bound` holds with `confidence`."""

    canaries: int
    guesses: int
    correct: int
    accuracy: float
    delta: float
    confidence: float
    epsilon_lower_bound: float


@dataclass(frozen=True)
class Trial:
    """One audited training: `steps` private steps at `rate` on `examples`.

    `canaries` are the rows that are in or out by a coin; all others are in.
    """

    network: Network
    examples: Examples
    canaries: Ints
    config: TrainConfig
    steps: int
    rate: float
    privacy: Privacy
    device: Device


def audit(trial: Trial, delta: float, confidence: float, seed: int) -> CanaryAudit:
    """Draw the coins from `seed`, train, guess, and bound epsilon."""
    coins = np.random.default_rng([seed, 0]).random(len(trial.canaries)) < 0.5
    start = trial.network.read()
    released = _released(trial, start, coins, seed)
    known = [_sum(trial, start, np.full(len(coins), value)) for value in (True, False)]
    scale = trial.steps * trial.rate
    centred = {
        name: released[name] - scale * (known[0][name] + known[1][name]) / 2 for name in released
    }
    return judge(scores(trial, start, centred), coins, delta, confidence)


def judge(
    values: npt.NDArray[np.float64], coins: npt.NDArray[np.bool_], delta: float, confidence: float
) -> CanaryAudit:
    """Guess from the scores `values` [m] what the `coins` [m] were, and bound epsilon."""
    m = len(coins)
    right = ((values > 0) == coins)[np.argsort(-np.abs(values), kind="stable")]
    found = []
    for part, share in ATTEMPTS.items():
        made = round(part * m)
        correct = int(right[:made].sum())
        level = 1.0 - (1.0 - confidence) * share
        found.append((one_run_bound(m, made, correct, delta, level), made, correct))
    best = max(found, key=lambda one: one[0])
    accuracy = float(right.mean())
    return CanaryAudit(m, best[1], best[2], accuracy, delta, confidence, best[0])


def _chosen(trial: Trial, coins: npt.NDArray[np.bool_]) -> Chosen:
    inside = np.ones(len(trial.examples), dtype=bool)
    inside[trial.canaries] = coins
    return Chosen(trial.examples, np.flatnonzero(inside))


def _released(
    trial: Trial, start: dict[str, Tensor], coins: npt.NDArray[np.bool_], seed: int
) -> dict[str, Tensor]:
    """The sum of all updates, each times the public divisor: sum of clipped gradients and noise."""
    rows = _chosen(trial, coins)
    settings = replace(trial.config, local_steps=1, optimizer="sgd", lr=1.0)
    total = {name: torch.zeros_like(value) for name, value in start.items()}
    for step in range(trial.steps):
        keys = np.random.default_rng([seed, 1, step]).integers(0, 2**62, 2)
        sampling = torch.Generator().manual_seed(int(keys[0]))
        noise = torch.Generator(trial.device.device).manual_seed(int(keys[1]))
        done = train(
            trial.network,
            rows,
            start,
            settings,
            trial.rate,
            trial.privacy,
            sampling,
            noise,
            trial.device,
        )
        for name, delta in done.delta.items():
            total[name] -= delta * (trial.rate * len(rows))
    return total


def _sum(trial: Trial, start: dict[str, Tensor], coins: npt.NDArray[np.bool_]) -> dict[str, Tensor]:
    """The sum of clipped gradients of one step in which every row takes part, without noise."""
    bare = replace(trial, steps=1, rate=1.0, privacy=replace(trial.privacy, noise_multiplier=0.0))
    return _released(bare, start, coins, 0)


def scores(
    trial: Trial, start: dict[str, Tensor], direction: dict[str, Tensor]
) -> npt.NDArray[np.float64]:
    """<g_i, direction> / |g_i| of every canary at `start`, [m], up to a common positive factor."""
    network = trial.network
    length = float(torch.sqrt(sum((v**2).sum() for v in direction.values())))  # type: ignore[arg-type]
    losses = []
    for sign in (1.0, -1.0):
        step = sign * PROBE / length
        network.write({name: value + step * direction[name] for name, value in start.items()})
        losses.append(_losses(trial))
    network.write(start)
    change = (losses[0] - losses[1]).numpy()
    result: npt.NDArray[np.float64] = change / np.maximum(_norms(trial).numpy(), 1e-12)
    return result


def _batches(trial: Trial) -> list[list[int]]:
    size = trial.config.physical_batch
    return [trial.canaries[i : i + size].tolist() for i in range(0, len(trial.canaries), size)]


def _losses(trial: Trial) -> Tensor:
    """Loss of every canary, [m], in float32 and without autocast."""
    found = []
    with torch.inference_mode():
        for rows in _batches(trial):
            batch = _float(trial.examples.__getitems__(rows).to(trial.device.device))
            logits = trial.examples.logits(trial.network, batch)
            found.append(
                nn.functional.cross_entropy(logits.double(), batch.labels, reduction="none").cpu()
            )
    return torch.cat(found)


def _norms(trial: Trial) -> Tensor:
    """Norm of every canary's gradient, [m]."""
    found = []
    suffix = trial.network.suffix.train()
    module = BookkeepingModule(Forward(trial.network, trial.examples), 1.0, "flat")
    try:
        for rows in _batches(trial):
            batch = _float(trial.examples.__getitems__(rows).to(trial.device.device))
            logits = module(batch)
            module.backward(nn.functional.cross_entropy(logits, batch.labels, reduction="none"))
            found.append(module.per_sample_gradient_norms.cpu())
    finally:
        module.remove_hooks()
        suffix.eval()
        suffix.zero_grad(set_to_none=True)
    return torch.cat(found)


def _float(batch: Batch) -> Batch:
    return (
        replace(batch, inputs=batch.inputs.float()) if batch.inputs.is_floating_point() else batch
    )
