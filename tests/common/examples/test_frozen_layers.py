"""The vectors of frozen layers are computed once, for the examples that are read, and kept."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from client.training import LocalTraining, train
from common.config import LoraConfig, ModelConfig, TrainConfig
from common.device import Device
from common.examples.frozen_layers import FrozenLayerExamples, Store
from common.examples.prepare import prepare
from common.models.build import build
from common.models.network import Network
from simulation.seeded_streams import SeededStream

Reviews = tuple[list[str], list[int]]
FP32 = Device(torch.device("cpu"), torch.float32)


def opened(base: Path, reviews: Reviews, cache: Path) -> tuple[Network, FrozenLayerExamples, Store]:
    lora = LoraConfig(targets=["intermediate.dense"])
    config = ModelConfig(base=str(base), drop_layers=0, layers=1, max_length=24, lora=lora)
    net = build(config, ("no", "yes"), seed=3)
    texts, labels = reviews[0][:40], np.array(reviews[1][:40])
    rows = prepare(texts, labels, net, config, FP32, cache)
    assert isinstance(rows, FrozenLayerExamples)
    assert rows.store is not None
    return net, rows, rows.store


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows that are computed from here on."""
    seen: list[int] = []
    whole = Store._compute
    monkeypatch.setattr(
        Store,
        "_compute",
        lambda self, chosen, run: (seen.extend(chosen.tolist()), whole(self, chosen, run)),
    )
    return seen


def test_rows_that_are_not_drawn_are_not_computed(
    tiny_bert: Path, reviews: Reviews, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = counted(monkeypatch)
    net, rows, store = opened(tiny_bert, reviews, tmp_path)
    assert computed == []
    settings = TrainConfig(local_steps=2)
    for seed in (1, 1, 2):
        train(
            net,
            rows,
            net.read(),
            LocalTraining(settings, 0.2, None),
            SeededStream(seed),
            SeededStream(0),
            FP32,
        )
    assert 0 < len(computed) < len(rows)
    assert len(set(computed)) == len(computed), "a row was computed twice"
    assert sorted(computed) == np.flatnonzero(store.checksums).tolist()
    # Another process finds them, and computes the others alone.
    _, again, _ = opened(tiny_bert, reviews, tmp_path)
    again.ready(np.arange(len(again)))
    assert sorted(computed) == list(range(len(rows)))
    assert again.store is not None
    assert again.store.whole.all()


def test_a_row_is_the_same_whenever_it_is_computed(
    tiny_bert: Path, reviews: Reviews, tmp_path: Path
) -> None:
    _, one, _ = opened(tiny_bert, reviews, tmp_path / "one")
    _, other, _ = opened(tiny_bert, reviews, tmp_path / "other")
    one.ready(np.arange(len(one)))
    for row in np.random.default_rng(0).permutation(len(other)):
        other.ready(np.array([row]))
    every = list(range(len(one)))
    a, b = one.__getitems__(every), other.__getitems__(every)
    torch.testing.assert_close(a.inputs, b.inputs, atol=1e-6, rtol=0)
    assert a.entered is not None
    assert b.entered is not None
    torch.testing.assert_close(a.entered, b.entered, atol=1e-6, rtol=0)


@pytest.mark.parametrize("lost", ["vectors", "entered", "checksums"])
def test_what_did_not_reach_the_disk_is_computed_again(
    tiny_bert: Path,
    reviews: Reviews,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lost: str,
) -> None:
    _, rows, store = opened(tiny_bert, reviews, tmp_path)
    every = list(range(len(rows)))
    expected = rows.__getitems__(every)
    begin = int(rows.offsets[3]) if lost == "vectors" else 3
    # As the disk has it after a loss of power: nothing of what was written last.
    getattr(store, lost)[begin : begin + 1] = 0
    computed = counted(monkeypatch)
    found = opened(tiny_bert, reviews, tmp_path)[1].__getitems__(every)
    assert computed == [3]
    for one, other in ((found.inputs, expected.inputs), (found.entered, expected.entered)):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


def test_two_that_fill_one_file(
    tiny_bert: Path, reviews: Reviews, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, one, _ = opened(tiny_bert, reviews, tmp_path)
    _, other, _ = opened(tiny_bert, reviews, tmp_path)
    one.ready(np.arange(0, 25))
    other.ready(np.arange(15, 40))
    computed = counted(monkeypatch)
    every = list(range(40))
    third = opened(tiny_bert, reviews, tmp_path)[1].__getitems__(every)
    assert torch.equal(one.__getitems__(every).inputs, third.inputs)
    assert computed == [], "a row that the other had computed was computed again"


def test_a_full_disk_is_an_error_and_leaves_nothing(
    tiny_bert: Path, reviews: Reviews, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(OSError, match="No space left"):
            opened(tiny_bert, reviews, tmp_path)
    assert not list(tmp_path.rglob("*prefix-*"))
    opened(tiny_bert, reviews, tmp_path)


def test_a_partner_without_rows(tiny_bert: Path, tmp_path: Path) -> None:
    _, rows, _ = opened(tiny_bert, ([], []), tmp_path)
    rows.ready(np.arange(0))
    assert len(rows.__getitems__([])) == 0


def test_a_file_system_that_reserves_nothing(
    tiny_bert: Path, reviews: Reviews, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unable(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", unable)
    _, rows, _ = opened(tiny_bert, reviews, tmp_path)
    assert bool(rows.__getitems__([0, 5]).inputs.any())
