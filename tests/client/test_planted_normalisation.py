"""Faults of normalised DP-SGD: what a step divides by must not depend on other records.

The mechanism that is accounted is a sum of clipped gradients plus noise.  Dividing it by a public
constant afterwards changes nothing; dividing by the size of the batch that was drawn, or by one
that follows from the number of records, or scaling a gradient by those of others, does (arXiv
2605.15648 on averaged subsampled Gaussian mechanisms).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from opacus.optimizers import DPOptimizer
from torch import Tensor

from client import bookkeeping, clipping, selfcheck, training
from client.selfcheck import Subject
from client.training import Privacy
from tests.client.test_planted_faults import subject  # noqa: F401


@pytest.fixture(autouse=True)
def normalised(monkeypatch: pytest.MonkeyPatch) -> None:
    """All checks train with AUTO-S."""
    monkeypatch.setattr(
        selfcheck, "Privacy", lambda noise, clip, kind: Privacy(noise, clip, kind, "automatic")
    )


@pytest.mark.parametrize("kind", ["hooks", "bookkeeping"])
def test_no_alarm_as_it_is(subject: Subject, kind: str) -> None:  # noqa: F811
    assert selfcheck.check_training(replace(subject, clipping=kind)) == []


@pytest.mark.parametrize("kind", ["hooks", "bookkeeping"])
def test_division_by_the_size_of_the_batch_that_was_drawn(
    subject: Subject,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    sound, drawn = DPOptimizer.scale_grad, training.PoissonBatches.__iter__
    sizes: list[int] = []

    def noted(self: training.PoissonBatches) -> Iterator[list[int]]:
        for rows in drawn(self):
            sizes.append(len(rows))
            yield rows

    def actual(self: DPOptimizer) -> None:
        self.expected_batch_size = max(1, sizes[-1])
        sound(self)

    monkeypatch.setattr(DPOptimizer, "scale_grad", actual)
    monkeypatch.setattr(training.PoissonBatches, "__iter__", noted)
    alarm = selfcheck.divisor(replace(subject, clipping=kind))
    assert "divided by its real size" in " ".join(alarm)


def test_division_by_what_follows_from_the_number_of_records(
    subject: Subject,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The expected batch size q N is no constant either, where N is private."""
    sound = training.train

    def by_records(network: Any, examples: Any, start: Any, how: Any, *rest: Any) -> Any:
        return sound(network, examples, start, replace(how, expected_batch_size=None), *rest)

    monkeypatch.setattr(training, "train", by_records)
    assert selfcheck.divisor(subject) != []


@pytest.mark.parametrize("kind", ["hooks", "bookkeeping"])
def test_normalisation_by_the_norms_of_other_records(
    subject: Subject,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    """Every gradient is divided by the batch's mean norm: one record changes the others' part."""

    def by_the_mean(norms: Tensor, clip: float, clipping_rule: str) -> Tensor:
        return torch.full_like(norms, clip) / (norms.mean() + clipping.AUTO_S_GAMMA)

    monkeypatch.setattr(clipping, "clip_factors", by_the_mean)
    monkeypatch.setattr(bookkeeping, "clip_factors", by_the_mean)
    # Opacus' own clipping would hide that a gradient is too long, not that it moves the others.
    alarm = selfcheck.sensitivity(replace(subject, clipping=kind))
    assert "one record moved the sum" in " ".join(alarm)
