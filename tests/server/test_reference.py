"""The server's own update is what a partner with the public rows would send."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from client.training import LocalTraining, train
from common.config import ModelConfig, TrainConfig
from common.device import Device
from common.examples.prepare import prepare
from common.models.build import build
from server.reference import reference_update
from server.testset import TestSet

FP32 = Device(torch.device("cpu"), torch.float32)


@pytest.mark.parametrize("steps", [1, 3])
def test_equals_a_partners_update_on_the_same_rows(
    tiny_bert: Path, reviews: tuple[list[str], list[int]], tmp_path: Path, steps: int
) -> None:
    model = ModelConfig(base=str(tiny_bert), max_length=24, layers=1, trainable="last_k")
    network = build(model, ("bad", "good"), seed=3)
    texts, labels = reviews
    rows = prepare(texts[:60], np.array(labels[:60]), network, model, FP32, tmp_path)
    start = {name: value.clone() for name, value in network.read().items()}
    config = TrainConfig(local_steps=steps, batch_size=60, lr=0.3)
    found = reference_update(network, start, TestSet(rows, {}, rows, FP32), config)
    network.write(start)
    generator = torch.Generator().manual_seed(0)
    partner = train(
        network, rows, start, LocalTraining(config, 1.0, None), generator, generator, FP32
    )
    for name, delta in partner.delta.items():
        assert float(delta.abs().max()) > 0
        torch.testing.assert_close(found[name], delta, rtol=1e-4, atol=1e-6)
