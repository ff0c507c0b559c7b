"""The automatic choice of clipping: measured once, remembered, independent of the rows."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from client import grad_sample_mode
from client.training import Privacy
from common.config import ModelConfig, TrainConfig
from common.device import Device
from common.examples.prepare import prepare
from common.models.build import build

FP32 = Device(torch.device("cpu"), torch.float32)


def test_measures_once_and_remembers(
    tiny_bert: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    measured = []
    speeds = grad_sample_mode._examples_per_second

    def counted(*arguments: object) -> dict[str, float]:
        measured.append(1)
        return speeds(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(grad_sample_mode, "_examples_per_second", counted)
    picks = []
    for trainable, length, size in (
        ("lora", 16, 8), ("lora", 16, 8), ("last_k", 16, 8), ("full", 16, 8), ("lora", 24, 8),
        ("lora", 16, 8), ("lora", 16, 4),
    ):  # fmt: skip
        config = ModelConfig(base=str(tiny_bert), max_length=length, trainable=trainable, layers=1)
        net = build(config, ("bad", "good"), seed=3)
        empty = prepare([], np.zeros(0, dtype=np.int64), net, config, FP32, tmp_path)
        before = net.read()
        with caplog.at_level(logging.INFO, "fedaccord"):
            picked = grad_sample_mode.choose(
                net, empty, length, TrainConfig(physical_batch=size),
                Privacy(1.0, 0.1, "auto"), FP32, tmp_path / "cache",
            )  # fmt: skip
        picks.append(picked.grad_sample_mode)
        assert f"auto picked {picked.grad_sample_mode}" in caplog.records[-1].getMessage()
        assert all(torch.equal(value, net.read()[name]) for name, value in before.items())
    assert len(measured) == 5
    assert set(picks) <= {"hooks", "bookkeeping"}
    assert picks[0] == picks[1] == picks[5]
    assert len(list((tmp_path / "cache").glob("clipping-*"))) == 5


def test_what_is_named_is_kept(tiny_bert: Path, tmp_path: Path) -> None:
    config = ModelConfig(base=str(tiny_bert), max_length=16, layers=1)
    net = build(config, ("bad", "good"), seed=3)
    empty = prepare([], np.zeros(0, dtype=np.int64), net, config, FP32, tmp_path)
    named = Privacy(1.0, 0.1, "bookkeeping", "automatic")
    assert grad_sample_mode.choose(net, empty, 16, TrainConfig(), named, FP32, tmp_path) is named
