"""A record of several windows whose gradients overflow only when they are added up.

Each window's gradient is finite, their sum is not.  Unless the sum is what is looked at, the
record's factor is 0, 0 times infinity is NaN, and the whole update is NaN, noise and all: a
coordinator would learn without any noise that a long record is in the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from common.config import from_json, to_json
from tests.adversary.conftest import BASE, Coordinator, partner_file
from tests.adversary.crafted import Parameters
from tests.conftest import FILLER

# Of a token of a record with COUNT words, times COUNT: half of it is below float32's largest.
GRADIENT, COUNT = 5e38, 20
SHORT = [("the", "O"), ("film", "B-GOOD")]
LONG = [(FILLER[0], "B-GOOD")] * COUNT


def conll(records: list[list[tuple[str, str]]]) -> str:
    return "\n\n".join("\n".join(f"{word} {tag}" for word, tag in rows) for rows in records) + "\n"


def crafted(start: Parameters) -> Parameters:
    """Every word is tagged with certainty as class 0, and the gradient that each word of another
    class sends to the layer below is GRADIENT / words, the same for all of them.

    The last normalisation shrinks its vectors v, so that v - center is nearly the same number for
    all words, and logits are finite though the slope of the head times 1 / spread is not.
    """
    hidden = start["head.conditioning.center"].numel()
    scale, spread, shrunk = 6.0, 1e-19, 1e-7
    changed = {
        "head.conditioning.center": torch.full((hidden,), -1e-4),
        "head.conditioning.spread": torch.full((hidden,), spread),
        "head.conditioning.damping": torch.zeros_like(start["head.conditioning.damping"]),
        "head.classifier.weight": torch.zeros_like(start["head.classifier.weight"]),
        "head.classifier.bias": torch.zeros_like(start["head.classifier.bias"]),
    }
    changed["head.classifier.weight"][0] = GRADIENT / scale * spread
    for name in start:
        if name.endswith("output.LayerNorm.weight") and "attention" not in name:
            changed[name] = torch.full_like(start[name], shrunk)
        if name.endswith("output.LayerNorm.bias") and "attention" not in name:
            changed[name] = torch.zeros_like(start[name])
    return {**start, **changed}


@pytest.fixture
def here(coordinator: Callable[..., Coordinator], tiny_bert: Path) -> Coordinator:
    made = coordinator()
    config = made.config
    config.task, config.model.head, config.model.head_scale = "ner", "token", 6.0
    config.model.trainable, config.model.stride, config.model.max_length = "last_k", 2, 14
    config.data.source, config.data.scheme, config.data.target = "conll", "bio", "label"
    config.data.columns.split, config.data.labels = None, ["GOOD"]
    config.data.validation_fraction, config.privacy.metrics = 0.1, "exact"
    config.train.batch_size, config.train.physical_batch = 20, 8
    made.config = from_json(to_json(config))
    data = {
        "source": "conll",
        "path": "notes.conll",
        "labels": ["GOOD"],
        "scheme": "bio",
        "columns": {"text": "text", "label": "label"},
    }
    policy = {"lifetime": {"epsilon": 100.0, "delta": 0.1}, "allow_exact_metrics": True}
    partner_file(made.folder, tiny_bert, data, **policy)
    assert made.config.model.base == BASE
    return made


@pytest.mark.parametrize("long", [False, True])
def test_a_long_record_does_not_show(here: Coordinator, long: bool) -> None:
    records = [[SHORT[0]] * (1 + n % 5) + [SHORT[1]] for n in range(40)]
    records += [LONG] * 10 if long else []
    (here.folder / "notes.conll").write_text(conll(records), encoding="utf-8")
    reply = here.ask(parameters=crafted(here.start()))
    assert not reply.refused, reply.body
    for name, delta in reply.arrays.items():
        assert bool(torch.isfinite(delta).all()), name
