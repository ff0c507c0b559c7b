"""Faults planted into the real training path, each of which breaks the guarantee; each is seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opacus.optimizers import DPOptimizer
from opacus.optimizers import optimizer as opacus_optimizer

from client import handlers, selfcheck, training
from client.deployed import Model, PartnerFile
from client.ledger import Ledger, Spend
from client.noise import GridNoise
from client.policy import Policy
from client.selfcheck import Subject
from client.session import Session
from common import grid, messages
from common.config import DataConfig
from common.errors import UserError
from common.messages import Report
from deployment import partner_check
from simulation.seeded_streams import SeededStream, SeededStreams
from tests.client.test_metrics import model, session  # noqa: F401
from tests.client.test_training import FP32, make_examples, network


@pytest.fixture
def subject(tiny_bert: Path, reviews: tuple[list[str], list[int]], tmp_path: Path) -> Subject:
    net, config = network(tiny_bert)
    records = make_examples(net, config, reviews, tmp_path, 40)
    fewer = make_examples(net, config, reviews, tmp_path, 39)
    return Subject(net, net.read(), records, fewer, 0.05, "hooks", FP32)


@pytest.mark.parametrize("clipping", ["hooks", "ghost"])
def test_no_alarm_as_it_is(subject: Subject, clipping: str) -> None:
    assert selfcheck.check_training(replace(subject, clipping=clipping)) == []


def test_no_clipping(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    def unclipped(self: DPOptimizer) -> None:
        for p in self.params:
            found = self._get_flat_grad_sample(p).sum(0)
            p.summed_grad = found if p.summed_grad is None else p.summed_grad + found
            opacus_optimizer._mark_as_processed(p.grad_sample)

    monkeypatch.setattr(DPOptimizer, "clip_and_accumulate", unclipped)
    assert "one record moved the sum" in " ".join(selfcheck.sensitivity(subject))


def test_clipping_to_another_norm(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = DPOptimizer.clip_and_accumulate

    def loose(self: DPOptimizer) -> None:
        self.max_grad_norm, kept = 2 * self.max_grad_norm, self.max_grad_norm
        sound(self)
        self.max_grad_norm = kept

    monkeypatch.setattr(DPOptimizer, "clip_and_accumulate", loose)
    assert "one record moved the sum" in " ".join(selfcheck.sensitivity(subject))


def test_no_noise(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(self: GridNoise) -> None:
        for p in self.params:
            p.grad = p.summed_grad.to(p.dtype).view_as(p)

    monkeypatch.setattr(GridNoise, "add_noise", silent)
    assert "standard deviation" in " ".join(selfcheck.noise(subject))


def test_noise_of_half_the_size(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = grid.rounded_gaussian
    monkeypatch.setattr(
        grid, "rounded_gaussian", lambda stream, scale, count: sound(stream, scale / 2, count)
    )
    assert "standard deviation" in " ".join(selfcheck.noise(subject))


def test_the_same_noise_in_every_step(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = grid.rounded_gaussian
    monkeypatch.setattr(
        grid,
        "rounded_gaussian",
        lambda stream, scale, count: sound(SeededStream(count), scale, count),
    )
    assert "the same noise" in " ".join(selfcheck.noise(subject))


def test_division_by_the_actual_batch_size(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = DPOptimizer.scale_grad

    def actual(self: DPOptimizer) -> None:
        taken = [len(rows) for rows in self_batches]
        self.expected_batch_size = max(1, taken[-1])
        sound(self)

    self_batches: list[list[int]] = []
    drawn = training.PoissonBatches.__iter__

    def noted(self: training.PoissonBatches) -> Iterator[list[int]]:
        for rows in drawn(self):
            self_batches.append(rows)
            yield rows

    monkeypatch.setattr(DPOptimizer, "scale_grad", actual)
    monkeypatch.setattr(training.PoissonBatches, "__iter__", noted)
    assert "divided by its real size" in " ".join(selfcheck.divisor(subject))


def test_fixed_size_batches_accounted_as_poisson(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shuffled(self: training.PoissonBatches) -> Iterator[list[int]]:
        n, size = len(self.lengths), round(self.sample_rate * len(self.lengths))
        for _ in range(len(self)):
            yield np.argsort(self.stream.words(n))[:size].tolist()

    monkeypatch.setattr(training.PoissonBatches, "__iter__", shuffled)
    assert "fixed size" in " ".join(selfcheck.sampling(subject))


def test_epochs_accounted_as_poisson(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes as they should be, but each record comes once an epoch."""

    def epochs(self: training.PoissonBatches) -> Iterator[list[int]]:
        rate, n = self.sample_rate, len(self.lengths)
        generator = np.random.default_rng(1)
        left: list[int] = []
        for _ in range(len(self)):
            size = generator.binomial(n, rate)
            if len(left) < size:
                left = generator.permutation(n).tolist()
            yield left[:size]
            left = left[size:]

    monkeypatch.setattr(training.PoissonBatches, "__iter__", epochs)
    assert "depends on the batch before" in " ".join(selfcheck.sampling(subject))


def test_noise_seeded_by_the_coordinator(
    session: Callable[..., Session],  # noqa: F811
) -> None:
    here = session()
    assert selfcheck.secret_noise(lambda step: handlers.streams(here, step)) == []
    known = SeededStreams(here.config.run.seed, "known to the coordinator")
    seeded = replace(here, partner=replace(here.partner, streams=known))
    alarm = selfcheck.secret_noise(lambda step: handlers.streams(seeded, step))
    assert "the noise stream follows" in " ".join(alarm)


def two_rounds(here: Session) -> Report:
    found = [messages.unpack(handlers.train(here, *model(here, number))) for number in (1, 2)]
    assert isinstance(found[-1], Report)
    return found[-1]


def test_accountant_reset_every_round(
    session: Callable[..., Session],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = session()
    delta = here.config.privacy.delta

    def alarm(report: Report, steps: int) -> list[str]:
        with Ledger.open(here.partner.ledger, "clinic") as ledger:
            return selfcheck.accounting(ledger.entries(), steps, "run", delta, report.epsilon)

    assert alarm(two_rounds(here), 2) == []
    # The epsilon of the last reservation alone is told.
    with monkeypatch.context() as patch:
        patch.setattr(
            Ledger,
            "epsilon",
            lambda self, delta, run=None, side=None: (
                selfcheck.epsilon(self.spent(run)[-1:], delta).value
            ),
        )
        assert "was told" in " ".join(alarm(two_rounds(here), 4))
    # A ledger that forgets: each round begins with an empty file.
    sound = Ledger.reserve

    def forget(self: Ledger, spend: Spend, *args: Any, **kwargs: Any) -> Any:
        same = "always the same"
        known = [e for e in self.entries() if e.body.get("release") == same]
        segments = known[0].segments if known else spend.segments
        return sound(self, replace(spend, release=same, segments=segments), *args, **kwargs)

    monkeypatch.setattr(handlers.Ledger, "reserve", forget)
    assert "are in the ledger" in " ".join(alarm(two_rounds(here), 6))


def test_partner_check_tries_the_installation(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = PartnerFile(
        path=tmp_path / "partner.yaml",
        name="north",
        server="localhost:1",
        directory=tmp_path / "state",
        data=DataConfig(),
        models={"tiny": Model(str(tiny_bert))},
        policy=Policy.permissive(8.0, 1e-5),
    )
    assert "clipped, noised and sampled" in partner_check.check_training(own)
    assert not list((tmp_path / "state").iterdir())

    def silent(self: GridNoise) -> None:
        for p in self.params:
            p.grad = p.summed_grad.to(p.dtype).view_as(p)

    monkeypatch.setattr(GridNoise, "add_noise", silent)
    with pytest.raises(UserError, match=r"the noise.*do not train with this installation"):
        partner_check.check_training(own)
