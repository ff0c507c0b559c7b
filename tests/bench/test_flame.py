"""Samples end up in the phase that they belong to, and boxes are as wide as their time."""

from __future__ import annotations

import re

import pytest

from bench.flame import REST, draw, own_frames, read, seconds_by_phase

RAW = """\
main (scripts/cli.py:1);run (r/x.py:2);train (client/handlers.py:9);train (client/training.py:3) 30
main (scripts/cli.py:1);_round (server/rounds.py:2);evaluate (common/evaluation.py:3);mm (t.py:1) 10
main (scripts/cli.py:1);_find_and_load (<frozen importlib._bootstrap>:1176);x (peft/x.py:1) 15
_find_and_load (<frozen importlib._bootstrap>:1176);build (common/models/build.py:5) 5
train (client/training.py:1);ready (common/examples/frozen_layers.py:5);_compute (x.py:9) 20
evaluate (common/evaluation.py:1);ready (common/examples/frozen_layers.py:5);_compute (x.py:9) 10
poll (grpc/x.py:1) 40
main (scripts/cli.py:1);ask (server/exchange.py:96);Condition.wait (threading.py:331) 70
"""


def test_every_sample_has_one_phase() -> None:
    found = seconds_by_phase(read(RAW), 20)
    assert found["training: steps"] == 1.5
    assert found["training: frozen layers, once for a row"] == 1.0
    assert found["evaluation: frozen layers, once for a row"] == 0.5
    assert found["evaluation"] == 0.5
    assert found["imports"] == 1.0
    assert found[REST] == 2.0
    assert sum(found.values()) == 6.5


def test_a_stack_keeps_the_projects_functions() -> None:
    first = next(iter(read(RAW)))
    assert own_frames(first) == (
        "scripts.cli: main",
        "client.handlers: train",
        "client.training: train",
    )
    assert own_frames(["poll (grpc/x.py:1)"]) == (REST,)


def test_boxes_are_as_wide_as_their_time_and_lie_in_their_callers() -> None:
    boxes = {
        title: (float(x), float(width))
        for title, x, width in re.findall(
            r'<title>(.*?),.*?</title><rect x="(.*?)" y=".*?" width="(.*?)"', draw(read(RAW), 20)
        )
    }
    assert boxes["scripts.cli: main"][1] == pytest.approx(1200 * 55 / 130, abs=0.1)
    x, width = boxes["client.handlers: train"]
    assert width == pytest.approx(1200 * 30 / 130, abs=0.1)
    outer, total = boxes["scripts.cli: main"]
    assert outer <= x
    assert x + width <= outer + total + 0.1
