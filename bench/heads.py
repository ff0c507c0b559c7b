"""A federation whose encoder stays frozen: seconds in place of minutes, for studies of strategies.

Every review is encoded once, to the vector that the head of the default model sees before anything
is trained (mean pooling of two layers, conditioned on the server's public rows).  What is then
trained is the head alone, a linear classifier.  All else is the real thing: the partition of the
rows, Poisson batches, per-example clipping and calibrated noise, the attacks of
`strategies.attacks`, screening, and the composed pipeline with its server optimiser and appeals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from client.accounting import calibrate
from common.config import Config, malicious
from common.data.load import resolve_labels
from common.data.split import split_partner
from common.device import pick_device
from common.examples.batch import Examples, by_length
from common.examples.prepare import prepare
from common.models.build import build
from common.models.network import Network
from common.seeds import torch_generator
from common.tasks import LOSS_BOUND
from scripts.compose import compose_config
from server.calibration import calibrate_head
from server.testset import TestSet
from simulation.partner import simulated_shares
from strategies.attacks.kinds import Aggregate
from strategies.attacks.simulate import build_attack, corrupt
from strategies.build import build as build_pipeline
from strategies.pipeline import Pipeline
from strategies.updates import Cohort, Layout, Reply

TOKENS = 4096


@dataclass(frozen=True)
class Rows:
    """`x` [n, features + 1], the last column ones, and labels `y` [n]."""

    x: Tensor
    y: Tensor

    def __getitem__(self, chosen: np.ndarray | Tensor) -> Rows:
        where = torch.as_tensor(chosen)
        return Rows(self.x[where], self.y[where])

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Encoded:
    """Vectors of all rows that partners share, of the server's public rows and of the test rows,
    whose `sources` [n] say where each comes from."""

    shared: Rows
    public: Rows
    test: Rows
    sources: np.ndarray


@dataclass(frozen=True)
class Outcome:
    """Accuracies after the last round; those of partners, by name, are of the honest ones."""

    test: float
    by_source: dict[str, float]
    partners: dict[str, float]

    @property
    def worst(self) -> float:
        """The lowest accuracy of an honest partner."""
        return min(self.partners.values())


def encode(overrides: Sequence[str], directory: Path) -> Encoded:
    """The vectors for the data and model of `overrides`, kept in `directory` between calls."""
    path = directory / "heads.pt"
    if path.exists():
        return Encoded(**_rows_from(torch.load(path, weights_only=False)))
    config = compose_config(overrides)
    labels = resolve_labels(config.data, directory)
    config = replace(
        config,
        data=replace(config.data, labels=labels),
        run=replace(config.run, cache_dir=str(directory)),
    )
    table, _ = simulated_shares(config)
    network = build(config.model, tuple(config.data.labels), 0)
    test = TestSet.load(config, network)
    assert test is not None
    calibrate_head(network, test.validation, test.device)
    device = pick_device(config.model.precision)
    shared = prepare(table.texts, table.labels, network, config.model, device, directory)
    found = {
        "shared": _vectors(network, shared),
        "public": _vectors(network, test.validation),
        "test": _vectors(network, test.test),
        "sources": test.groups["source"],
    }
    torch.save(found, path)
    return Encoded(**_rows_from(found))


def _rows_from(found: Mapping[str, object]) -> dict[str, object]:
    return {k: Rows(*v) if isinstance(v, tuple) else v for k, v in found.items()}


def _vectors(network: Network, rows: Examples) -> tuple[Tensor, Tensor]:
    head: nn.Linear = network.trained.head.classifier
    x = torch.ones(len(rows), head.in_features + 1)
    seen: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, args: seen.append(args[0].float()))
    device = pick_device("auto")
    try:
        for chosen in by_length(rows.lengths, TOKENS):
            batch = rows.__getitems__(chosen.tolist()).to(device)
            with torch.inference_mode(), device.autocast():
                rows.logits(network, batch)
            x[chosen.tolist(), :-1] = seen.pop().cpu()
    finally:
        hook.remove()
    return x, torch.as_tensor(np.asarray(rows.labels))


@cache
def composed(overrides: tuple[str, ...]) -> Config:
    """The configuration of `overrides`, composed once."""
    return compose_config(overrides)


@dataclass(frozen=True)
class Federation:
    """Training and validation rows of every partner."""

    train: dict[str, Rows]
    validation: dict[str, Rows]

    @classmethod
    def of(cls, encoded: Encoded, config: Config, directory: Path) -> Federation:
        """The partners of `config`, divided by its seed."""
        config = replace(config, run=replace(config.run, cache_dir=str(directory)))
        table, shares = simulated_shares(config)
        train, validation = {}, {}
        for share in shares:
            rows = table.select(share.indices)
            parts = split_partner(rows, config.data.validation_fraction, config.split_seed)
            train[share.name] = encoded.shared[share.indices[parts.train]]
            validation[share.name] = encoded.shared[share.indices[parts.validation]]
        return cls(train, validation)


def train(encoded: Encoded, partners: Federation, config: Config) -> Outcome:
    """All rounds of `config` under its strategy, attack, privacy and seed.

    Raises UserError when a stage cannot work on so many partners.
    """
    seed, rounds = config.run.seed, config.run.rounds
    names = sorted(partners.train)
    pipeline = build_pipeline(config.strategy)
    pipeline.check(len(names))
    bad = malicious(config, names)
    rows = dict(partners.train)
    if str(config.attack.get("_target_")).endswith("LabelFlip"):
        rows |= {name: Rows(rows[name].x, 1 - rows[name].y) for name in bad}
    size = encoded.test.x.shape[1]
    layout = Layout(("head",), ((2, size),))
    params = torch.zeros(layout.size)
    state = pipeline.init(layout, names)
    noise = _noise(config, {name: len(partners.train[name]) for name in names})
    for number in range(1, rounds + 1):
        weight = params.view(2, size)
        replies = []
        for name in names:
            generator = torch_generator(seed, "heads", name, number)
            loss, accuracy = _measure(weight, partners.validation[name])
            metrics = {"loss": loss, "accuracy": accuracy, "examples": float(len(rows[name]))}
            delta = _step(weight, rows[name], config, noise[name], generator)
            replies.append(Reply(name, {"head": delta}, metrics))
        reference = _gradient(weight, encoded.public).flatten().neg()
        replies = _attacked(replies, config, bad, layout, pipeline, state, number, reference)
        cohort = Cohort(layout, names)
        for reply in replies:
            if pipeline.screening.check(reply, layout) is None:
                cohort.put(reply)
        cohort.sort()
        outcome = pipeline.aggregate(
            cohort,
            params,
            state,
            number,
            rounds,
            torch_generator(seed, "strategy", number),
            evaluate=lambda flat: _measure(flat.view(2, size), encoded.public)[0],
            reference=reference,
        )
        params, state = outcome.params, outcome.state
    weight = params.view(2, size)
    sources = {
        source: _measure(weight, encoded.test[np.flatnonzero(encoded.sources == source)])[1]
        for source in sorted(set(encoded.sources.tolist()))
    }
    honest = {n: _measure(weight, partners.validation[n])[1] for n in names if n not in bad}
    return Outcome(_measure(weight, encoded.test)[1], sources, honest)


def run(overrides: tuple[str, ...], directory: Path) -> Outcome:
    """Train under `overrides` on the default data, whose vectors `directory` keeps."""
    partition = tuple(o for o in overrides if o.startswith(("partition", "run.seed")))
    return train(_encoded(directory), _federation(partition, directory), composed(overrides))


@cache
def _encoded(directory: Path) -> Encoded:
    return encode((), directory)


@cache
def _federation(overrides: tuple[str, ...], directory: Path) -> Federation:
    return Federation.of(_encoded(directory), composed(overrides), directory)


def _noise(config: Config, sizes: Mapping[str, int]) -> dict[str, float]:
    privacy, batch = config.privacy, config.train.batch_size
    if not config.private:
        return dict.fromkeys(sizes, 0.0)
    return {
        name: _calibrated(privacy.epsilon, privacy.delta, batch / size, config.run.rounds)
        for name, size in sizes.items()
    }


@cache
def _calibrated(epsilon: float, delta: float, rate: float, steps: int) -> float:
    return calibrate(epsilon, delta, rate, steps)


def _step(
    weight: Tensor, rows: Rows, config: Config, noise: float, generator: torch.Generator
) -> Tensor:
    """One Poisson batch's clipped, noised, averaged gradient of the cross-entropy, negated."""
    clip, batch = config.privacy.max_grad_norm, config.train.batch_size
    chosen = torch.rand(len(rows), generator=generator) < batch / len(rows)
    x, y = rows.x[chosen], rows.y[chosen]
    error = torch.softmax(x @ weight.T, 1) - nn.functional.one_hot(y, 2)
    if config.private:
        norm = error.norm(dim=1) * x.norm(dim=1)
        error = error * (clip / (norm + 1e-6)).clamp(max=1.0)[:, None]
    total = error.T @ x
    if noise > 0:
        total = total + noise * clip * torch.randn(weight.shape, generator=generator)
    return -total / batch


def _gradient(weight: Tensor, rows: Rows) -> Tensor:
    """The mean gradient of the cross-entropy."""
    error = torch.softmax(rows.x @ weight.T, 1) - nn.functional.one_hot(rows.y, 2)
    return error.T @ rows.x / len(rows)


def _measure(weight: Tensor, rows: Rows) -> tuple[float, float]:
    """Bounded loss and accuracy."""
    logits = rows.x @ weight.T
    loss = nn.functional.cross_entropy(logits, rows.y, reduction="none").clamp(0.0, LOSS_BOUND)
    return float(loss.mean()), float((logits.argmax(1) == rows.y).float().mean())


def _attacked(
    replies: list[Reply],
    config: Config,
    bad: Sequence[str],
    layout: Layout,
    pipeline: Pipeline,
    state: dict[str, Tensor],
    number: int,
    reference: Tensor,
) -> list[Reply]:
    attack = build_attack(config.attack)
    if attack is None:
        return replies

    def rule(rows: Sequence[Reply]) -> Aggregate:
        told = {reply.partner: reply.metrics for reply in rows}
        return pipeline.aggregator(told, state, number, reference)

    generator = torch_generator(config.run.seed, "attack", number)
    return corrupt(attack, replies, bad, layout, rule, generator)
