"""What a processor keeps as it was, and the same numbers on a GPU where there is one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from client.training import LocalTraining, Privacy, Trained, train
from common.config import ModelConfig, TrainConfig, validate
from common.device import Device, gpu_share, pick_device
from common.errors import UserError
from common.evaluation import evaluate
from common.examples.batch import Examples
from common.examples.prepare import prepare
from common.models.build import build
from common.models.network import Network
from scripts.compose import compose_config
from simulation.seeded_streams import SeededStream

FP32 = Device(torch.device("cpu"), torch.float32)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize(
    ("gpus", "workers", "share"),
    [(0, 8, 0.0), (1, 1, 1.0), (1, 3, 0.3333), (1, 8, 0.125), (2, 3, 0.5), (4, 2, 1.0)],
)
def test_workers_fit_on_the_gpus(
    monkeypatch: pytest.MonkeyPatch, gpus: int, workers: int, share: float
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert gpu_share(workers) == share
    if gpus:
        on_one = int((1 + 1e-9) / share)
        assert on_one * gpus >= workers


def test_tf32_and_compilation_do_nothing_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("tf32", compiled=True) == FP32
    before = torch.get_float32_matmul_precision()
    with FP32.products():
        assert torch.get_float32_matmul_precision() == before


def test_tf32_is_for_passes_through_the_model_alone() -> None:
    device = Device(torch.device("cpu"), torch.float32, tf32=True)
    before = torch.get_float32_matmul_precision()
    with device.products():
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before


def test_tf32_never_takes_the_norms() -> None:
    config = compose_config(["model.precision=tf32", "privacy.grad_sample_mode=hooks"])
    validate(config)
    config.privacy.grad_sample_mode = "bookkeeping"
    with pytest.raises(
        UserError, match=r"model.precision: tf32 requires privacy.grad_sample_mode=hooks"
    ):
        validate(config)


def rows_on(
    device: Device, tiny_bert: Path, reviews: tuple[list[str], list[int]], cache: Path
) -> tuple[Network, Examples]:
    config = ModelConfig(base=str(tiny_bert), max_length=24, layers=1)
    net = build(config, ("negative", "positive"), seed=3)
    for part in (net.embeddings, net.frozen, net.trained):
        part.to(device.device)
    texts, labels = reviews
    return net, prepare(texts[:60], np.array(labels[:60]), net, config, device, cache)


def step_on(device: Device, net: Network, rows: Examples, clipping: str | None) -> Trained:
    return train(
        net,
        rows,
        net.read(),
        LocalTraining(
            TrainConfig(physical_batch=7),
            0.4,
            None if clipping is None else Privacy(1e-9, 0.05, clipping),
        ),
        SeededStream(5),
        SeededStream(6),
        device,
    )


def joined(delta: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in delta.values()])


GPU = torch.device("cuda")


@needs_gpu
@pytest.mark.parametrize("clipping", [None, "hooks", "ghost", "bookkeeping"])
@pytest.mark.parametrize(
    ("device", "tolerance"),
    [
        (Device(GPU, torch.float32), 1e-3),
        (Device(GPU, torch.float32, tf32=True), 1e-2),
        (Device(GPU, torch.float32, compiled=True), 1e-3),
        (Device(GPU, torch.bfloat16), 5e-2),
    ],
    ids=["fp32", "tf32", "compiled", "bf16"],
)
def test_a_gpu_takes_the_same_step(
    tiny_bert: Path,
    reviews: tuple[list[str], list[int]],
    tmp_path: Path,
    device: Device,
    tolerance: float,
    clipping: str | None,
) -> None:
    wanted = joined(step_on(FP32, *rows_on(FP32, tiny_bert, reviews, tmp_path), clipping).delta)
    net, rows = rows_on(device, tiny_bert, reviews, tmp_path)
    found = joined(step_on(device, net, rows, clipping).delta)
    assert float((found - wanted).norm() / wanted.norm()) < tolerance


@needs_gpu
def test_a_gpu_gives_the_same_evaluation(
    tiny_bert: Path, reviews: tuple[list[str], list[int]], tmp_path: Path
) -> None:
    losses = []
    for device in (FP32, Device(GPU, torch.float32)):
        net, rows = rows_on(device, tiny_bert, reviews, tmp_path)
        losses.append(evaluate(net, rows, {}, device).loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@needs_gpu
def test_batches_come_from_pinned_memory() -> None:
    device = Device(GPU, torch.float32)
    there = device.copy(torch.arange(6).reshape(2, 3))
    assert there.device.type == "cuda"
    assert there.cpu().tolist() == [[0, 1, 2], [3, 4, 5]]


def test_half_precision_products_are_added_in_float32() -> None:
    products = torch.backends.cuda.matmul
    products.allow_bf16_reduced_precision_reduction = True
    products.allow_fp16_reduced_precision_reduction = True
    pick_device()
    assert not products.allow_bf16_reduced_precision_reduction
    assert not products.allow_fp16_reduced_precision_reduction
    assert not products.allow_fp16_accumulation
