"""The floor counts the arithmetic of the trained part alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench.floor import flops_of_a_row, rate
from common.config import LoraConfig, ModelConfig
from common.device import Device
from common.models.build import build

FP32 = Device(torch.device("cpu"), torch.float32)
TOKENS, ROWS = 200, 3


@pytest.mark.parametrize("targets", [["intermediate.dense"], ["query"]])
def test_flops_are_those_of_the_layers_that_are_gone_through(
    tiny_bert: Path, targets: list[str]
) -> None:
    lora = LoraConfig(r=1, alpha=1, targets=targets, factors="b")
    net = build(
        ModelConfig(base=str(tiny_bert), max_length=24, drop_layers=0, lora=lora),
        ("bad", "good"),
        0,
    )
    width, wide = net.trained.config.hidden_size, net.trained.config.intermediate_size
    forward = 2 * 2 * width * wide
    # Back through the second of the two matrices, whose weights are frozen.
    backward = 2 * width * wide
    if targets == ["query"]:
        # Four matrices of the attention; back through both of the others and the last of these.
        forward += 4 * 2 * width * width
        backward += 2 * width * wide + 2 * width * width
    expected = TOKENS * (forward + backward)
    found = flops_of_a_row(net, FP32, TOKENS, ROWS)
    # The adapter and the head are small.
    assert expected <= found <= 1.1 * expected


def test_a_rate_is_an_amount_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(100))
    monkeypatch.setattr("time.perf_counter", lambda: next(now) / 4)
    assert rate(lambda: None, 3.0) == 12.0
