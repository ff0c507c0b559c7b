"""One training with many canaries: what does it show of who took part?

The audited program is the partner's own `client.training.train`.  Each canary is a row that is in
or out by a fair coin.  The auditor is the strongest that the guarantee speaks of: a coordinator who
sends the same parameters in every round, reads every update, and knows all rows and everything but
the coins and the noise.

Let g_i be the clipped gradient of row i at those parameters and S the sum of all updates before
division.  S is sum_i w_i g_i and noise, where w_i counts in how many steps row i took part.  From S
the auditor takes its mean over coins and sampling (computed without noise), and estimates the
deviations of all w from the products y_i = <g_i, S> by the best linear estimator,
(K + noise) w = y with K_ij = <g_i, g_j>, so that no canary hides behind others that resemble it.
The system is solved by conjugate gradients without forming K: a product with K is one weighted
gradient, and the directional derivatives of all losses along it.  A positive deviation is guessed
"in", a negative one "out", and those nearest to zero are left unanswered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from auditing import f_dp
from auditing.bounds import one_run_bound
from auditing.f_dp import FDPAudit
from client.bookkeeping import BookkeepingModule
from client.clipping import clip_factors
from client.training import Forward, LocalTraining, Privacy, train
from common.config import TrainConfig
from common.device import Device
from common.examples.batch import Batch, Examples, Ints
from common.models.network import Network
from common.randomness import Stream
from simulation.seeded_streams import SeededStream

# How many of the canaries are guessed, and the share of the error probability that each of these
# attempts may use up; the best attempt counts.
ATTEMPTS = {1.0: 0.8, 0.25: 0.1, 0.05: 0.1}
# Conjugate gradients stop at this share of the right side, or after so many products.
RESIDUAL = 1e-4
ITERATIONS = 30


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

    def ready(self, indices: Ints) -> None:
        """As of all rows."""
        self.examples.ready(self.rows[indices])

    def drawn(self, stream: Stream) -> Chosen:
        """As of all rows."""
        return Chosen(self.examples.drawn(stream), self.rows)

    def release(self) -> None:
        """As of all rows."""
        self.examples.release()


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


@dataclass(frozen=True)
class CanaryBounds:
    """Two bounds from the same training and scores; each holds with the confidence it names.

    `epsilon_delta` assumes nothing of the training; `f_dp` assumes Gaussian noise and shows more.
    """

    epsilon_delta: CanaryAudit
    f_dp: FDPAudit


def audit(
    trial: Trial, claimed: float | None, delta: float, confidence: float, seed: int
) -> CanaryBounds:
    """Draw the coins from `seed`, train, guess, and bound epsilon in two ways.

    Each of the two bounds holds with `confidence`.  The `claimed` epsilon only decides how many
    guesses the second one makes.
    """
    guesses = f_dp.planned_guesses(len(trial.canaries), claimed, delta, 1.0 - confidence)
    values, coins = scores(trial, seed)
    return CanaryBounds(
        judge(values, coins, delta, confidence),
        f_dp.judge(values, coins, guesses, trial.rate, trial.steps, delta, confidence),
    )


def scores(trial: Trial, seed: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Draw the coins [m] of the canaries from `seed`, train, and score each canary [m].

    A score above zero speaks for "in"; the further from zero, the surer.
    """
    coins = np.random.default_rng([seed, 0]).random(len(trial.canaries)) < 0.5
    start = trial.network.read()
    released = _released(trial, start, coins, seed)
    known = [_sum(trial, start, np.full(len(coins), value)) for value in (True, False)]
    scale = trial.steps * trial.rate
    centred = {
        name: released[name] - scale * (known[0][name] + known[1][name]) / 2 for name in released
    }
    return deviations(trial, start, centred), coins


def judge(
    values: npt.NDArray[np.float64], coins: npt.NDArray[np.bool_], delta: float, confidence: float
) -> CanaryAudit:
    """Guess from the scores `values` [m] what the `coins` [m] were, and bound epsilon."""
    m = len(coins)
    right = ((values > 0) == coins)[np.argsort(-np.abs(values), kind="stable")]
    bounds = []
    for part, share in ATTEMPTS.items():
        guesses = round(part * m)
        correct = int(right[:guesses].sum())
        level = 1.0 - (1.0 - confidence) * share
        bounds.append((one_run_bound(m, guesses, correct, delta, level), guesses, correct))
    best = max(bounds, key=lambda one: one[0])
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
        done = train(
            trial.network,
            rows,
            start,
            LocalTraining(settings, trial.rate, trial.privacy),
            SeededStream(seed, "audit batches", step),
            SeededStream(seed, "audit noise", step),
            trial.device,
        )
        for name, delta in done.delta.items():
            total[name] -= delta * (trial.rate * len(rows))
    return total


def _sum(trial: Trial, start: dict[str, Tensor], coins: npt.NDArray[np.bool_]) -> dict[str, Tensor]:
    """The sum of clipped gradients of one step in which every row takes part, without noise."""
    bare = replace(trial, steps=1, rate=1.0, privacy=replace(trial.privacy, noise_multiplier=0.0))
    return _released(bare, start, coins, 0)


def deviations(
    trial: Trial, start: dict[str, Tensor], centred: dict[str, Tensor]
) -> npt.NDArray[np.float64]:
    """Estimated deviations [m] of the canaries' weights in the sum, from `centred`."""
    rate, steps = trial.rate, trial.steps
    sampled = steps * rate * (1.0 - rate)
    prior = np.full(len(trial.examples), sampled)
    prior[trial.canaries] = steps**2 * rate**2 / 4 + sampled / 2
    # Rows that are in for certain have nothing to be estimated.
    rows = np.flatnonzero(prior > 0)
    scale = torch.from_numpy(np.sqrt(prior[rows]))
    gradients = Gradients(trial, rows, start)
    noise = steps * (trial.privacy.noise_multiplier * trial.privacy.max_grad_norm) ** 2

    def system(vector: Tensor) -> Tensor:
        return scale * gradients.products(gradients.total(scale * vector)) + noise * vector

    solved = scale * conjugate_gradients(system, scale * gradients.products(centred))
    result: npt.NDArray[np.float64] = solved[np.isin(rows, trial.canaries)].numpy()
    return result


def conjugate_gradients(system: Callable[[Tensor], Tensor], right: Tensor) -> Tensor:
    """x with `system`(x) = `right` [n] for a symmetric positive `system`, in float64."""
    solution, residual = torch.zeros_like(right), right.clone()
    direction, square = residual.clone(), residual @ residual
    enough = RESIDUAL**2 * square
    for _ in range(ITERATIONS):
        if square <= enough:
            break
        moved = system(direction)
        step = square / (direction @ moved)
        solution += step * direction
        residual -= step * moved
        before, square = square, residual @ residual
        direction = residual + (square / before) * direction
    return solution


class Gradients:
    """Clipped gradients g_i of `rows` at `start`, as sums and products, one batch at a time."""

    def __init__(self, trial: Trial, rows: Ints, start: dict[str, Tensor]) -> None:
        self.trial = trial
        self.start = start
        size = trial.config.physical_batch
        self.batches = [rows[i : i + size].tolist() for i in range(0, len(rows), size)]
        trial.network.write(start)
        privacy = trial.privacy
        self.factors = clip_factors(self._norms(), privacy.max_grad_norm, privacy.clipping).double()

    def total(self, weights: Tensor) -> dict[str, Tensor]:
        """sum_i weights_i g_i."""
        named = self.trial.network.trainable()
        sums = {name: torch.zeros_like(p) for name, p in named.items()}
        each = (weights * self.factors).float()
        for rows, some in zip(
            self.batches, each.split([len(b) for b in self.batches]), strict=True
        ):
            batch = self._batch(rows)
            logits = self.trial.examples.logits(self.trial.network, batch)
            losses = nn.functional.cross_entropy(logits, batch.labels, reduction="none")
            loss = (losses * some.to(losses.device)).sum()
            gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
            for total, gradient in zip(sums.values(), gradients, strict=True):
                if gradient is not None:
                    total += gradient
        return {name: total.cpu() for name, total in sums.items()}

    def products(self, direction: dict[str, Tensor]) -> Tensor:
        """<g_i, direction> of all rows, [n] in float64, by forward-mode differentiation."""
        network = self.trial.network
        model, parameters = Forward(network, self.trial.examples), network.trainable()
        tangents = []
        # The fused attention kernels know no forward mode.
        with torch.no_grad(), forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH):
            dual = {
                f"trained.{name}": forward_ad.make_dual(p, direction[name].to(p.device))
                for name, p in parameters.items()
            }
            for rows in self.batches:
                batch = self._batch(rows)
                logits = torch.func.functional_call(model, dual, (batch,))
                losses = nn.functional.cross_entropy(logits, batch.labels, reduction="none")
                tangents.append(forward_ad.unpack_dual(losses).tangent.cpu())
        return self.factors * torch.cat(tangents).double()

    def _batch(self, rows: list[int]) -> Batch:
        batch = self.trial.examples.__getitems__(rows).to(self.trial.device)
        if batch.inputs.is_floating_point():
            batch = replace(batch, inputs=batch.inputs.float())
        return batch

    def _norms(self) -> Tensor:
        """Norm of every row's gradient, [n]."""
        norms, network = [], self.trial.network
        network.trained.train()
        module = BookkeepingModule(Forward(network, self.trial.examples), 1.0, "abadi")
        try:
            for rows in self.batches:
                batch = self._batch(rows)
                losses = nn.functional.cross_entropy(module(batch), batch.labels, reduction="none")
                module.backward(losses)
                norms.append(module.per_sample_gradient_norms.cpu())
        finally:
            module.remove_hooks()
            network.trained.eval()
            network.trained.zero_grad(set_to_none=True)
        return torch.cat(norms)
