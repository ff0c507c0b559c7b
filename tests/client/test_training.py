"""Private training against the definition: clip each example's gradient, add noise, divide."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from client.training import LocalTraining, PoissonBatches, Privacy, train
from client.wiring import cut_off
from common.config import LoraConfig, ModelConfig, TrainConfig
from common.device import Device
from common.examples.batch import Examples
from common.examples.prepare import prepare
from common.models.build import build
from common.models.network import Network
from simulation.seeded_streams import SeededStream

FP32 = Device(torch.device("cpu"), torch.float32)
WAYS = ("hooks", "ghost", "bookkeeping")
CHOICES = [
    *(("lora", "mean", way, "abadi") for way in WAYS),
    *(("lora", "mean", way, "automatic") for way in WAYS),
    *(("last_k", "cls", way, "abadi") for way in WAYS),
    ("full", "mean", "hooks", "abadi"),
    ("full", "mean", "bookkeeping", "automatic"),
    ("full", "cls", "ghost", "abadi"),
    ("full", "cls", "bookkeeping", "abadi"),
]


def network(tiny_bert: Path, **settings: object) -> tuple[Network, ModelConfig]:
    # Both factors of three kinds of layer are trained: more shapes than the default has.
    chosen = {
        "drop_layers": 0,
        "head_scale": 6.0,
        "lora": LoraConfig(8, 16, ["query", "value", "dense"], "both"),
        **settings,
    }
    config = ModelConfig(base=str(tiny_bert), max_length=24, layers=1, **chosen)  # type: ignore[arg-type]
    return build(config, ("negative", "positive"), seed=3), config


def make_examples(
    net: Network, config: ModelConfig, reviews: tuple[list[str], list[int]], cache: Path, n: int
) -> Examples:
    texts, labels = reviews
    return prepare(texts[:n], np.array(labels[:n]), net, config, FP32, cache)


def expected_step(
    net: Network,
    examples: Examples,
    start: dict[str, Tensor],
    rate: float,
    clip: float,
    clipping_rule: str,
) -> dict[str, Tensor]:
    """- sum of clipped per-example gradients / expected batch size, one example at a time."""
    net.write(start)
    names = list(net.trainable())
    total = {name: torch.zeros_like(start[name]) for name in names}
    batch = next(iter(PoissonBatches(np.asarray(examples.lengths), rate, 1, SeededStream(5))))
    for row in batch:
        one = examples.__getitems__([row])
        loss = nn.functional.cross_entropy(examples.logits(net, one), one.labels)
        gradients = torch.autograd.grad(loss, list(net.trainable().values()))
        norm = float(torch.sqrt(sum((g**2).sum() for g in gradients)))
        factor = clip / (norm + 0.01) if clipping_rule == "automatic" else min(1.0, clip / norm)
        for name, gradient in zip(names, gradients, strict=True):
            total[name] -= gradient * factor / (rate * len(examples))
    return total


@pytest.mark.parametrize(("trainable", "head", "clipping", "clipping_rule"), CHOICES)
def test_equals_explicit_per_example_loop(
    tiny_bert: Path,
    reviews: tuple[list[str], list[int]],
    tmp_path: Path,
    trainable: str,
    head: str,
    clipping: str,
    clipping_rule: str,
) -> None:
    net, config = network(tiny_bert, trainable=trainable, head=head)
    examples = make_examples(net, config, reviews, tmp_path, 60)
    generator = torch.Generator().manual_seed(1)
    start = {k: v + 0.1 * torch.randn(v.shape, generator=generator) for k, v in net.read().items()}
    # A tiny noise multiplier: far below the tolerance, but the noise path runs.
    done = train(
        net,
        examples,
        start,
        LocalTraining(
            TrainConfig(physical_batch=7), 0.4, Privacy(1e-9, 0.05, clipping, clipping_rule)
        ),
        SeededStream(5),
        SeededStream(6),
        FP32,
    )
    wanted = expected_step(net, examples, start, 0.4, 0.05, clipping_rule)
    for name, delta in wanted.items():
        torch.testing.assert_close(done.delta[name], delta, atol=2e-7, rtol=1e-3, msg=name)


def test_noise_has_the_stated_size(
    tiny_bert: Path, reviews: tuple[list[str], list[int]], tmp_path: Path
) -> None:
    net, config = network(tiny_bert, trainable="last_k")
    examples = make_examples(net, config, reviews, tmp_path, 50)
    start = net.read()
    inputs = (net, examples, start)

    def run(sigma: float, noise_seed: int) -> Tensor:
        done = train(
            *inputs,
            LocalTraining(TrainConfig(), 0.5, Privacy(sigma, 0.3, "hooks")),
            SeededStream(1),
            SeededStream(noise_seed),
            FP32,
        )
        return torch.cat([d.flatten() for d in done.delta.values()])

    noise = run(2.0, 7) - run(1e-12, 7)
    # std = sigma * clip / expected batch size = 2.0 * 0.3 / 25
    assert noise.std().item() == pytest.approx(0.024, rel=0.03)
    assert abs(noise.mean().item()) < 4 * 0.024 / len(noise) ** 0.5


def test_empty_batch_takes_a_noised_step(
    tiny_bert: Path, reviews: tuple[list[str], list[int]], tmp_path: Path
) -> None:
    net, config = network(tiny_bert)
    examples = make_examples(net, config, reviews, tmp_path, 20)
    for clipping in WAYS:
        done = train(
            net,
            examples,
            net.read(),
            LocalTraining(TrainConfig(local_steps=2), 1e-9, Privacy(1.0, 0.1, clipping)),
            SeededStream(1),
            SeededStream(2),
            FP32,
        )
        assert all(bool(d.abs().max() > 0) for d in done.delta.values())


@pytest.mark.parametrize("clipping_rule", ["abadi", "automatic"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("clipping", ["hooks", "bookkeeping"])
def test_adding_one_record_moves_the_sum_by_at_most_the_clip(
    tiny_bert: Path,
    reviews: tuple[list[str], list[int]],
    tmp_path: Path,
    clipping: str,
    precision: torch.dtype,
    clipping_rule: str,
) -> None:
    net, config = network(tiny_bert, trainable="last_k")
    with_record = make_examples(net, config, reviews, tmp_path, 30)
    without = make_examples(net, config, reviews, tmp_path, 29)
    start = net.read()
    sums = []
    for examples in (with_record, without):
        rate = 1.0
        done = train(
            net,
            examples,
            start,
            LocalTraining(TrainConfig(), rate, Privacy(1e-12, 0.1, clipping, clipping_rule)),
            SeededStream(1),
            SeededStream(2),
            Device(torch.device("cpu"), precision),
        )
        flat = torch.cat([d.flatten() for d in done.delta.values()]).double()
        sums.append(flat * len(examples))
    distance = (sums[0] - sums[1]).norm().item()
    assert 0 < distance <= 0.1 * (1 + 1e-4)


@pytest.mark.parametrize("clipping", ["hooks", "bookkeeping"])
def test_a_row_whose_gradient_overflows_does_not_show(
    tiny_bert: Path, reviews: tuple[list[str], list[int]], tmp_path: Path, clipping: str
) -> None:
    """Parameters can be crafted so that a certain row gives NaN: noise would not hide that."""
    net, config = network(tiny_bert)
    examples = make_examples(net, config, reviews, tmp_path, 30)
    examples.ready(np.arange(30))
    examples.vectors[int(examples.offsets[3])] = float("inf")  # type: ignore[attr-defined]
    done = train(
        net,
        examples,
        net.read(),
        LocalTraining(TrainConfig(), 1.0, Privacy(1e-12, 0.1, clipping)),
        SeededStream(1),
        SeededStream(2),
        FP32,
    )
    flat = torch.cat([d.flatten() for d in done.delta.values()]).double()
    assert 0 < flat.norm().item() * len(examples) <= 29 * 0.1 * (1 + 1e-4)


def test_from_the_cache_equals_without_it(
    tiny_bert: Path, reviews: tuple[list[str], list[int]], tmp_path: Path
) -> None:
    deltas = []
    for cached in (True, False):
        net, config = network(tiny_bert)
        config = replace(config, prefix_cache=cached)
        examples = make_examples(net, config, reviews, tmp_path, 80)
        assert type(examples).__name__ == ("FrozenLayerExamples" if cached else "TokenExamples")
        done = train(
            net,
            examples,
            net.read(),
            LocalTraining(TrainConfig(local_steps=3), 0.3, Privacy(0.5, 0.1, "hooks")),
            SeededStream(1),
            SeededStream(2),
            FP32,
        )
        deltas.append(done.delta)
    for name, delta in deltas[0].items():
        torch.testing.assert_close(delta, deltas[1][name], atol=1e-5, rtol=0)


def test_frozen_a_does_not_travel(tiny_bert: Path) -> None:
    net, _ = network(tiny_bert, lora=LoraConfig(r=2, factors="b"))
    assert not [name for name in net.trainable() if "lora_A" in name]
    assert [name for name in net.trainable() if "lora_B" in name]


def test_a_tensor_that_is_cut_off_is_found_on_made_up_tokens(tiny_bert: Path) -> None:
    net, _ = network(tiny_bert, head="cls", trainable="last_k")
    assert cut_off(net) == ()
    cut_off.cache_clear()
    # Cut the pooler off, as a wrong wrapper would: its gradient can no longer arrive.
    net.trained.head.pooler.register_forward_hook(lambda m, i, out: out.detach())  # type: ignore[union-attr]
    assert "head.pooler.dense.weight" in cut_off(net)
