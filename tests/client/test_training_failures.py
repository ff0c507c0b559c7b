"""Examples that fail, and no examples at all: what they do is theirs alone, and does not show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from torch import Tensor

from auditing.canaries import Chosen
from client.training import LocalTraining, Privacy, train
from common import scoring
from common.config import TrainConfig
from common.examples.batch import Batch, Examples
from common.models.network import Network
from common.randomness import Stream
from common.scoring import Scoring, scoring_of
from simulation.seeded_streams import SeededStream
from tests.client.test_training import FP32, WAYS, make_examples, network


@pytest.mark.parametrize("clipping", WAYS)
def test_rows_that_fail_add_nothing_and_others_all(
    tiny_bert: Path, reviews: tuple[list[str], list[int]], tmp_path: Path, clipping: str
) -> None:
    """The update is that of the other rows alone, to the last bit of float32 sums."""
    net, config = network(tiny_bert)
    examples = make_examples(net, config, reviews, tmp_path, 30)

    @dataclass(frozen=True)
    class Failing(Chosen):
        def __getitems__(self, indices: Sequence[int]) -> Batch:
            if 3 in self.rows[np.asarray(indices)]:
                raise IndexError("a token that the model does not know")
            return super().__getitems__(indices)

        def drawn(self, stream: Stream) -> Failing:
            return self

    def update(rows: Examples) -> Tensor:
        done = train(
            net,
            rows,
            net.read(),
            LocalTraining(
                TrainConfig(physical_batch=8),
                1.0,
                Privacy(1e-12, 0.1, clipping),
                expected_batch_size=30.0,
            ),
            SeededStream(1),
            SeededStream(2),
            FP32,
        )
        return torch.cat([d.flatten() for d in done.delta.values()])

    start = net.read()
    failed = update(Failing(examples, np.arange(30)))
    net.write(start)
    without = update(Chosen(examples, np.delete(np.arange(30), 3)))
    torch.testing.assert_close(failed, without, atol=1e-7, rtol=1e-4)
    assert float(failed.norm()) > 0


class Planted:
    """Lets every batch of several rows fail once, at one place of a step."""

    def __init__(self, patch: pytest.MonkeyPatch, net: Network, examples: Examples) -> None:
        self.patch, self.net, self.examples = patch, net, examples
        self.sizes: list[int] = []

    def fail(self, size: int) -> None:
        self.sizes.append(size)
        if size > 1:
            raise RuntimeError("planted")

    def in_the_losses(self, backward: bool) -> None:
        """After the forward pass, or in the backward pass."""
        sound, fail = scoring_of(self.net.task), self.fail

        class Failing(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, value: Tensor) -> Tensor:
                return value.clone()

            @staticmethod
            def backward(ctx: Any, gradient: Tensor) -> Tensor:
                fail(len(gradient))
                return gradient

        def losses(logits: Tensor, batch: Batch) -> Tensor:
            if backward:
                return sound.losses(Failing.apply(logits), batch)  # type: ignore[arg-type]
            fail(len(batch))
            return sound.losses(logits, batch)

        self.patch.setitem(scoring._SCORING, self.net.task.name, Scoring(losses, sound.accumulator))

    def in_clipping(self) -> None:
        """After the clipped sum has been added, but before the optimiser says so."""
        drawn: list[Any] = [[]]
        read = type(self.examples).__getitems__

        def noted(examples: Any, rows: Any) -> Batch:
            drawn[0] = rows
            return read(examples, rows)

        def half_way(sound: Any) -> Any:
            def summed(optimizer: Any) -> None:
                sound(optimizer)
                self.fail(len(drawn[0]))

            return summed

        self.patch.setattr(type(self.examples), "__getitems__", noted)
        for owner, name in (
            (DPOptimizer, "clip_and_accumulate"),
            (DPOptimizerFastGradientClipping, "accumulate"),
        ):
            self.patch.setattr(owner, name, half_way(getattr(owner, name)))


@pytest.mark.parametrize("place", ["after the forward pass", "in the backward pass", "clipping"])
@pytest.mark.parametrize("clipping", WAYS)
def test_a_batch_that_fails_half_way_leaves_nothing_behind(
    tiny_bert: Path,
    reviews: tuple[list[str], list[int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    clipping: str,
    place: str,
) -> None:
    """Each batch of several rows fails once; its rows, one by one, give the same sum."""
    net, config = network(tiny_bert)
    examples = make_examples(net, config, reviews, tmp_path, 30)
    start = net.read()

    def update() -> Tensor:
        settings = LocalTraining(
            TrainConfig(physical_batch=8),
            1.0,
            Privacy(1e-12, 0.1, clipping),
            expected_batch_size=30.0,
        )
        done = train(net, examples, start, settings, SeededStream(1), SeededStream(2), FP32)
        return torch.cat([d.flatten() for d in done.delta.values()])

    wanted = update()
    planted = Planted(monkeypatch, net, examples)
    if place == "clipping":
        planted.in_clipping()
    else:
        planted.in_the_losses(backward=place == "in the backward pass")
    net.write(start)
    torch.testing.assert_close(update(), wanted, atol=1e-7, rtol=1e-4)
    assert max(planted.sizes) > 1
    assert planted.sizes.count(1) >= 30


def test_no_rows_at_all_take_a_noised_step(
    tiny_bert: Path, reviews: tuple[list[str], list[int]], tmp_path: Path
) -> None:
    """A partner without rows must not be told from one with a row."""
    net, config = network(tiny_bert)
    nothing = make_examples(net, config, reviews, tmp_path, 0)
    for clipping in WAYS:
        streams = (SeededStream(1), SeededStream(2))
        done = train(
            net,
            nothing,
            net.read(),
            LocalTraining(
                TrainConfig(), 0.5, Privacy(1.0, 0.1, clipping), expected_batch_size=10.0
            ),
            *streams,
            FP32,
        )
        assert all(bool(d.abs().max() > 0) for d in done.delta.values())


def test_without_privacy_a_row_that_fails_is_an_error(
    tiny_bert: Path, reviews: tuple[list[str], list[int]], tmp_path: Path
) -> None:
    net, config = network(tiny_bert)
    examples = make_examples(net, config, reviews, tmp_path, 30)
    streams = (SeededStream(1), SeededStream(2))
    with pytest.raises(IndexError):
        train(
            net,
            Chosen(examples, np.full(30, 99)),
            net.read(),
            LocalTraining(TrainConfig(), 1.0, None),
            *streams,
            FP32,
        )
