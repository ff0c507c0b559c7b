"""Local training: a few optimiser steps on Poisson-sampled batches, private or not.

Privacy argument of `train` with a clipping norm C, noise multiplier z and sampling rate q: each
step releases sum_i clip(g_i, C) + N(0, (zC)^2 I) on a public grid, divided by the *expected* batch
size, a public constant.  Adding or removing one example changes the sum by at most C in l2 norm,
and the example takes part with probability q, so each step is one Poisson-subsampled Gaussian
mechanism with the parameters that the ledger records (Abadi et al. 2016; Mironov et al. 2019);
rounding to the grid is part of the sensitivity (`common.grid`).  Per-example gradients are brought
to float32 before their norm is taken, so that bf16 arithmetic cannot loosen the bound.

Everything that leaves besides the parameters is independent of the examples, and so is whether
anything leaves at all: an example whose gradient cannot be computed adds zero, like one whose
gradient is not finite, and the step goes on.  Both are functions of that example alone, so the
sensitivity stays C.
"""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from opacus.utils.uniform_sampler import UniformWithReplacementSampler
from torch import Tensor, nn

from client.gradients import Clipper, Forward, clipper
from client.noise import GridNoise, private_optimizer
from common.config import TrainConfig
from common.device import Device, keep_memory
from common.errors import described
from common.examples.batch import Examples, Ints
from common.models.network import Network
from common.optimizer import local_optimizer
from common.randomness import Stream, chosen

__all__ = [
    "Forward",
    "LocalTraining",
    "PoissonBatches",
    "Privacy",
    "Proximal",
    "Trained",
    "train",
]

log = logging.getLogger(__name__)
# The inputs of the trained part are data, so that its first hook sees no gradient of them: Opacus
# needs none, and the warning would be written with every message.
warnings.filterwarnings("ignore", message="Full backward hook is firing")


@dataclass(frozen=True)
class Privacy:
    """How one message's gradients are made private; see `client.clipping` for the choices."""

    noise_multiplier: float
    max_grad_norm: float
    grad_sample_mode: str
    clipping: str = "abadi"


@dataclass(frozen=True)
class Proximal:
    """The proximal term of FedProx and Ditto: mu / 2 * |w - reference|^2, added to the loss.

    It is added after clipping and noise and depends on no example, so it changes nothing of the
    privacy argument.  With mu = 0 there is none.
    """

    mu: float
    reference: Mapping[str, Tensor]


@dataclass(frozen=True)
class LocalTraining:
    """Settings of one local training.

    Attributes:
        config: steps, optimiser, learning rate and physical batch.
        sample_rate: the probability with which each example enters a batch, independently of all
            others.
        privacy: clipping and noise; None trains without privacy.
        expected_batch_size: the public constant that divides the sum of gradients.  None takes
            `sample_rate * len(examples)`, which is public only where the number of examples is.
        proximal: a proximal term, or None.
    """

    config: TrainConfig
    sample_rate: float
    privacy: Privacy | None = None
    expected_batch_size: float | None = None
    proximal: Proximal | None = None


@dataclass(frozen=True)
class Trained:
    """`delta` per trainable tensor; `examples` expected through forward and backward.

    `seconds` of the steps; `frozen_seconds` of the frozen layers of examples never drawn before.
    """

    delta: dict[str, Tensor]
    examples: float
    seconds: float
    frozen_seconds: float


class PoissonBatches(UniformWithReplacementSampler):
    """Poisson-sampled logical batches whose examples are ordered by length, drawn from a `Stream`.

    Order inside a batch changes nothing for DP-SGD, and lets its physical batches hold examples of
    similar length, hence little padding.
    """

    def __init__(self, lengths: Ints, sample_rate: float, steps: int, stream: Stream) -> None:
        # Opacus' own constructor refuses an empty data set, which must look like any other.
        self.num_samples, self.sample_rate, self.steps = len(lengths), sample_rate, steps
        self.lengths, self.stream = lengths, stream

    def __iter__(self) -> Iterator[list[int]]:
        for _ in range(self.steps):
            indices = chosen(self.stream, self.sample_rate, self.num_samples)
            yield sorted(indices.tolist(), key=lambda index: int(self.lengths[index]))


@dataclass
class _PrivateSteps:
    """Steps on logical batches, whose examples go through the model `size` at a time."""

    model: Forward
    optimizer: GridNoise
    examples: Examples
    device: Device
    size: int
    privacy: Privacy

    def __post_init__(self) -> None:
        self.clipper = self._clipper()
        self.failures = 0

    def _clipper(self) -> Clipper:
        how = self.privacy
        return clipper(how.grad_sample_mode, self.model, self.optimizer, how.clipping, self.device)

    def step(self, indices: Sequence[int]) -> None:
        """One noisy step on the clipped sum of the examples at `indices`, even of none."""
        for part in _parts(indices, self.size):
            if not self._added(part):
                # One by one, so that what one example does is a function of that example alone.
                for index in part:
                    self._added([index])
        self.clipper.contribute_nothing()
        self._accumulate(last=True)
        self.optimizer.zero_grad(set_to_none=True)

    def _added(self, indices: Sequence[int]) -> bool:
        """Whether the clipped sum of the examples at `indices` could be computed and was added."""
        try:
            self.clipper.contribute(self.examples.__getitems__(indices).to(self.device))
            self._accumulate(last=False)
        except Exception as error:
            if self.failures == 0:
                log.error(
                    "gradients of private examples could not be computed: %s", described(error)
                )
            self.failures += len(indices) == 1
            # Opacus' hooks may be left half-way through a pass.
            self.clipper.close()
            self.optimizer.forget_batch()
            self.clipper = self._clipper()
            return False
        self.optimizer.zero_grad(set_to_none=True)
        return True

    def _accumulate(self, last: bool) -> None:
        self.optimizer.signal_skip_step(do_skip=not last)
        self.optimizer.step()

    def close(self) -> None:
        """Leave the network without hooks, and write to the partner's own log what failed."""
        self.clipper.close()
        if self.failures:
            log.error("%d gradients of private examples added nothing", self.failures)


@dataclass
class _PlainSteps:
    """The same steps without clipping and noise."""

    model: Forward
    optimizer: torch.optim.Optimizer
    examples: Examples
    device: Device
    size: int
    expected: float

    def step(self, indices: Sequence[int]) -> None:
        """One step on the sum of gradients, divided by the expected batch size."""
        for part in _parts(indices, self.size):
            batch = self.examples.__getitems__(part).to(self.device)
            with self.device.products():
                with self.device.autocast():
                    logits = self.model(batch)
                losses = self.model.losses(logits, batch)
                (losses.sum() / self.expected).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def close(self) -> None:
        """Nothing is to be undone."""


def _parts(indices: Sequence[int], size: int) -> list[list[int]]:
    """`indices` cut into parts of nearly equal length, each of at most `size`; none of none."""
    if not indices:
        return []
    return [part.tolist() for part in np.array_split(indices, math.ceil(len(indices) / size))]


def _add_proximal_term(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter], term: Proximal
) -> None:
    """Add `mu * (w - reference)` to the gradient before every step, after clipping and noise."""
    reference = {name: term.reference[name].to(p.device, p.dtype) for name, p in parameters.items()}

    def before(*_: object) -> None:
        for name, p in parameters.items():
            if p.grad is not None:
                p.grad.add_(p.detach() - reference[name], alpha=term.mu)

    optimizer.register_step_pre_hook(before)


def _ready(examples: Examples, batches: Sequence[Sequence[int]], private: bool) -> float:
    """Run the frozen layers of the examples that `batches` draw; returns the seconds that it took.

    Under privacy a failure here ends nothing: each batch tries again and leaves out what fails.
    """
    began = time.perf_counter()
    drawn = np.unique(np.concatenate([np.asarray(batch, np.int64) for batch in batches]))
    try:
        examples.ready(drawn)
    except Exception as error:
        if not private:
            raise
        log.error("frozen layers of private examples could not be computed: %s", described(error))
    return time.perf_counter() - began


def train(
    network: Network,
    examples: Examples,
    start: Mapping[str, Tensor],
    settings: LocalTraining,
    sampling: Stream,
    noise: Stream,
    device: Device,
) -> Trained:
    """Take `settings.config.local_steps` steps from `start`.

    Args:
        network: the model; it keeps the parameters after the last step.
        examples: the partner's own training examples.
        start: the trainable tensors to start from, by name.
        settings: how to sample, clip, add noise and step.
        sampling: decides which examples enter a batch.
        noise: the source of the Gaussian noise; both streams must be secret for the guarantee.
        device: where to compute.

    Returns:
        the change of each tensor.

    Raises:
        Exception: without privacy, whatever an example's error is; with privacy, an example that
            fails adds zero.
    """
    keep_memory()
    network.trained.to(device.device)
    network.write(start)
    start = network.read()
    network.trained.train()
    examples = examples.drawn(sampling)
    config, rate = settings.config, settings.sample_rate
    lengths = np.asarray(examples.lengths)
    batches = list(PoissonBatches(lengths, rate, config.local_steps, sampling))
    frozen_seconds = _ready(examples, batches, private=settings.privacy is not None)
    expected = settings.expected_batch_size
    expected = rate * len(examples) if expected is None else expected
    steps = _steps(network, examples, settings, expected, noise, device)
    began = time.perf_counter()
    try:
        for batch in batches:
            steps.step(batch)
    finally:
        steps.close()
    seconds = time.perf_counter() - began
    network.trained.eval()
    after = network.read()
    delta = {name: after[name] - start[name] for name in start}
    return Trained(delta, expected * config.local_steps, seconds, frozen_seconds)


def _steps(
    network: Network,
    examples: Examples,
    settings: LocalTraining,
    expected: float,
    noise: Stream,
    device: Device,
) -> _PlainSteps | _PrivateSteps:
    """The optimiser and how it steps; `expected` divides the sum of gradients."""
    model = Forward(network, examples)
    config, privacy = settings.config, settings.privacy
    inner = local_optimizer(list(network.trainable().values()), config)
    if settings.proximal is not None and settings.proximal.mu > 0:
        _add_proximal_term(inner, network.trainable(), settings.proximal)
    if privacy is None:
        return _PlainSteps(model, inner, examples, device, config.physical_batch, expected)
    optimizer = private_optimizer(
        inner,
        privacy.grad_sample_mode,
        privacy.clipping,
        noise_multiplier=privacy.noise_multiplier,
        max_grad_norm=privacy.max_grad_norm,
        expected_batch_size=expected,
        stream=noise,
    )
    return _PrivateSteps(model, optimizer, examples, device, config.physical_batch, privacy)
