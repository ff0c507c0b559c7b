"""Local training: a few optimiser steps on Poisson-sampled batches, private or not.

Privacy argument of `train` with a clipping norm C, noise multiplier z and sampling rate q: each
step releases sum_i clip(g_i, C) + N(0, (zC)^2 I), divided by the *expected* batch size, a public
constant.  Adding or removing one record changes the sum by at most C in l2 norm, and the record
takes part with probability q, so each step is one Poisson-subsampled Gaussian mechanism with the
parameters that the ledger records (Abadi et al. 2016; Mironov et al. 2019).  Per-example gradients
are brought to float32 before their norm is taken, so that bf16 arithmetic cannot loosen the bound.
Everything that leaves besides the parameters is independent of the rows.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from opacus.grad_sample import GradSampleModule
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.utils.batch_memory_manager import BatchMemoryManager
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
from opacus.utils.uniform_sampler import UniformWithReplacementSampler
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler

from client.bookkeeping import BookkeepingModule
from client.clipping import AutoSDPOptimizer, GhostModule
from common.config import TrainConfig
from common.device import Device, keep_memory
from common.features import Batch, Examples, Ints
from common.losses import per_record
from common.model import Network, may_not_rest, unmoved
from common.optimizer import local_optimizer
from common.tasks import Task

# The inputs of the trained part are data, so that its first hook sees no gradient of them: Opacus
# needs none, and the warning would be written with every message.
warnings.filterwarnings("ignore", message="Full backward hook is firing")


@dataclass(frozen=True)
class Privacy:
    """How one message's gradients are made private; see `client.clipping` for the choices."""

    noise_multiplier: float
    clip: float
    clipping: str
    normalize: str = "flat"


@dataclass(frozen=True)
class Trained:
    """`delta` per trainable tensor; `examples` expected through forward and backward.

    `seconds` of the steps; `frozen_seconds` of the frozen layers of rows never drawn before.
    """

    delta: dict[str, Tensor]
    examples: float
    seconds: float
    frozen_seconds: float


class PoissonBatches(Sampler[list[int]]):
    """Poisson-sampled logical batches whose rows are ordered by length.

    Order inside a batch changes nothing for DP-SGD, and lets the physical batches that
    BatchMemoryManager cuts from it hold rows of similar length, hence little padding.
    """

    def __init__(
        self, lengths: Ints, sample_rate: float, steps: int, generator: torch.Generator
    ) -> None:
        self.lengths = lengths
        self.sampler = UniformWithReplacementSampler(
            num_samples=len(lengths), sample_rate=sample_rate, generator=generator, steps=steps
        )

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[list[int]]:
        for rows in self.sampler:
            yield sorted(rows, key=lambda row: int(self.lengths[row]))


def _same(batch: Any) -> Any:
    return batch


class Forward(nn.Module):
    """What Opacus wraps: the network's trained part behind one `forward(batch)`."""

    def __init__(self, network: Network, examples: Examples) -> None:
        super().__init__()
        self.suffix = network.suffix
        self.task = network.task
        self._call: Callable[[Batch], Tensor] = lambda batch: examples.logits(network, batch)

    def forward(self, batch: Batch) -> Tensor:
        """Logits of a batch."""
        return self._call(batch)


class _Criterion(nn.Module):
    """The task's loss of each record, as Opacus calls a criterion."""

    reduction = "mean"

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task

    def forward(self, logits: Tensor, batch: Batch) -> Tensor:
        """Losses [records]."""
        return self.task.losses(logits, batch)


def _private_hooks(
    model: Forward, optimizer: DPOptimizer, loader: DataLoader[Batch], device: Device, size: int
) -> set[str]:
    """Per-example gradients from Opacus' hooks, clipped and noised by its DPOptimizer.

    Returns the names of parameters for which no row of any batch had a gradient.
    """
    module = GradSampleModule(model, loss_reduction="sum", strict=False)
    # Opacus adds `grad_sample` to parameters, which their type does not know.
    parameters: dict[str, Any] = {n: p for n, p in model.named_parameters() if p.requires_grad}
    silent, rows = set(parameters), 0
    try:
        with BatchMemoryManager(
            data_loader=loader, max_physical_batch_size=size, optimizer=optimizer
        ) as physical:
            for batch in physical:
                if len(batch) == 0:
                    for p in parameters.values():
                        p.grad_sample = torch.zeros((0, *p.shape), device=p.device)
                else:
                    rows += len(batch)
                    moved = batch.to(device)
                    with device.products():
                        with device.autocast():
                            logits = module(moved)
                        model.task.losses(logits, moved).sum().backward()
                    for name, p in parameters.items():
                        if getattr(p, "grad_sample", None) is None:
                            raise RuntimeError(f"training did not move {name}: it has no gradient")
                        # A row whose gradient overflows must not make the sum NaN, noise and all:
                        # parameters can be crafted so that one certain row does.
                        gradients = p.grad_sample.float().nan_to_num(0.0, 0.0, 0.0)
                        p.grad_sample = per_record(gradients, moved.owner, len(moved))
                        if name in silent and bool(p.grad_sample.any()):
                            silent.remove(name)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
    finally:
        module.remove_hooks()
    return {name.removeprefix("suffix.") for name in silent} if rows else set()


def _private_ghost(
    model: Forward,
    optimizer: DPOptimizerFastGradientClipping,
    loader: DataLoader[Batch],
    device: Device,
    size: int,
    normalize: str,
) -> None:
    """Ghost clipping (Li et al. 2022): norms without per-example gradients, two backward passes.

    Runs in float32: Opacus takes the norms in the dtype of the activations, and a bf16 norm would
    bound the sensitivity only to about one percent.
    """
    module = GhostModule(model, optimizer.max_grad_norm, normalize)
    criterion = DPLossFastGradientClipping(module, optimizer, _Criterion(model.task))

    def backward(batch: Batch) -> None:
        if batch.inputs.is_floating_point():
            batch = replace(batch, inputs=batch.inputs.float())
        criterion(module(batch), batch).backward()

    try:
        _fast_steps(backward, optimizer, loader, device, size)
    finally:
        module.remove_hooks()


def _private_bookkeeping(
    model: Forward,
    optimizer: DPOptimizerFastGradientClipping,
    loader: DataLoader[Batch],
    device: Device,
    size: int,
    normalize: str,
) -> set[str]:
    """Clipped sums from one backward pass.

    Returns the names of parameters for which no row of any batch had a gradient.
    """
    module = BookkeepingModule(model, optimizer.max_grad_norm, normalize)
    silent: set[Tensor] | None = None

    def backward(batch: Batch) -> None:
        nonlocal silent
        with device.autocast():
            logits = module(batch)
        unmoved_now = module.backward(model.task.losses(logits, batch))
        silent = unmoved_now if silent is None else silent & unmoved_now

    try:
        _fast_steps(backward, optimizer, loader, device, size)
    finally:
        module.remove_hooks()
    named = model.named_parameters()
    return {name.removeprefix("suffix.") for name, p in named if silent and p in silent}


def _fast_steps(
    backward: Callable[[Batch], None],
    optimizer: DPOptimizerFastGradientClipping,
    loader: DataLoader[Batch],
    device: Device,
    size: int,
) -> None:
    """Steps whose `backward` leaves the clipped sum of a physical batch in `p.grad`."""
    with BatchMemoryManager(
        data_loader=loader, max_physical_batch_size=size, optimizer=optimizer
    ) as physical:
        for batch in physical:
            if len(batch) == 0:
                for p in optimizer.params:
                    p.grad = torch.zeros_like(p)
            else:
                backward(batch.to(device))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)


def _plain(
    model: Forward,
    optimizer: torch.optim.Optimizer,
    loader: DataLoader[Batch],
    device: Device,
    size: int,
    expected: float,
) -> None:
    """The same steps without clipping and noise."""
    batches: list[list[int]] = loader.batch_sampler  # type: ignore[assignment]
    examples: Examples = loader.dataset  # type: ignore[assignment]
    for rows in batches:
        for start in range(0, len(rows), size):
            moved = examples.__getitems__(rows[start : start + size]).to(device)
            with device.products():
                with device.autocast():
                    logits = model(moved)
                losses = model.task.losses(logits, moved)
                (losses.sum() / expected).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def _attract(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, nn.Parameter],
    anchor: Mapping[str, Tensor],
    pull: float,
) -> None:
    """Add `pull * (w - anchor)` to the gradient of every step of the optimiser, the last thing."""
    fixed = {name: anchor[name].to(p.device, p.dtype) for name, p in parameters.items()}

    def before(*_: object) -> None:
        for name, p in parameters.items():
            if p.grad is not None:
                p.grad.add_(p.detach() - fixed[name], alpha=pull)

    optimizer.register_step_pre_hook(before)


def train(
    network: Network,
    examples: Examples,
    start: Mapping[str, Tensor],
    config: TrainConfig,
    sample_rate: float,
    privacy: Privacy | None,
    sampling: torch.Generator,
    noise: torch.Generator,
    device: Device,
    *,
    expected: float | None = None,
    anchor: Mapping[str, Tensor] | None = None,
    pull: float = 0.0,
) -> Trained:
    """Take `config.local_steps` steps from `start` and return the change of each tensor.

    Every row enters a batch independently with probability `sample_rate`; gradients are divided by
    `expected`, a public constant: by default the expected batch size, `sample_rate *
    len(examples)`, which is one only where the number of rows is public.  With `privacy`, each
    row's gradient is clipped to `privacy.clip` and Gaussian noise of `noise_multiplier * clip` is
    added to the sum.

    With `pull`, each step also follows the gradient of `pull / 2 * |w - anchor|^2`, the proximal
    term of FedProx and Ditto.  It is added after clipping and noise and knows no row, so it changes
    nothing of the privacy argument.

    Raises RuntimeError when a trainable tensor did not move at all, which means that some part of
    the model was silently cut off from its gradient.
    """
    keep_memory()
    network.suffix.to(device.device)
    network.write(start)
    start = network.read()
    network.suffix.train()
    examples = examples.drawn(sampling)
    model = Forward(network, examples)
    parameters = list(network.trainable().values())
    expected = sample_rate * len(examples) if expected is None else expected
    batches = list(
        PoissonBatches(np.asarray(examples.lengths), sample_rate, config.local_steps, sampling)
    )
    began = time.perf_counter()
    examples.ready(np.unique(np.concatenate([np.asarray(rows, np.int64) for rows in batches])))
    frozen_seconds = time.perf_counter() - began
    loader: DataLoader[Batch] = DataLoader(
        examples,  # type: ignore[arg-type]
        batch_sampler=batches,
        collate_fn=_same,
    )
    inner = local_optimizer(parameters, config)
    if pull > 0:
        assert anchor is not None
        _attract(inner, network.trainable(), anchor, pull)
    cut_off: set[str] = set()
    began = time.perf_counter()
    if privacy is None:
        _plain(model, inner, loader, device, config.physical_batch, expected)
    else:
        kinds = {("hooks", "flat"): DPOptimizer, ("hooks", "auto_s"): AutoSDPOptimizer}
        way, normalize = privacy.clipping, privacy.normalize
        optimizer = kinds.get((way, normalize), DPOptimizerFastGradientClipping)(
            inner,
            noise_multiplier=privacy.noise_multiplier,
            max_grad_norm=privacy.clip,
            expected_batch_size=expected,
            loss_reduction="mean",
            generator=noise,
        )
        run = (model, optimizer, loader, device, config.physical_batch)
        if way == "ghost":
            _private_ghost(*run, normalize)
        elif way == "bookkeeping":
            cut_off |= _private_bookkeeping(*run, normalize)
        else:
            cut_off |= _private_hooks(*run)
    seconds = time.perf_counter() - began
    network.suffix.eval()
    after = network.read()
    # Noise moves every tensor, so under privacy the gradients themselves are asked.
    if still := unmoved(start, after) + may_not_rest(start, cut_off):
        raise RuntimeError(f"training did not move {', '.join(still[:3])} ({len(still)} tensors)")
    delta = {name: after[name] - start[name] for name in start}
    return Trained(delta, expected * config.local_steps, seconds, frozen_seconds)
