"""Settings with which a coordinator could make one row count for more than the accountant says."""

from __future__ import annotations

import math
import signal
import time

import pytest
import torch

from client import task
from client.accounting import Budget, Segment
from client.clipping import clip_factors
from client.ledger import Ledger, Spend, is_planned
from common.config import Config, validate
from common.errors import UserError


@pytest.mark.parametrize(
    ("key", "value"),
    [
        # A factor of AUTO-S that overflows would turn the sum into NaN, and so into nothing.
        ("clip", 5e36),
        ("clip", 1e-30),
        ("clip", math.nan),
    ],
)
def test_clipping_norms_beyond_float32_are_refused(key: str, value: float) -> None:
    config = Config()
    config.privacy.max_grad_norm = value
    with pytest.raises(UserError, match=r"privacy\.max_grad_norm"):
        validate(config)


@pytest.mark.parametrize("clipping_rule", ["abadi", "automatic"])
def test_a_factor_is_finite_whatever_the_norm(clipping_rule: str) -> None:
    norms = torch.tensor([0.0, 1e-45, 1.0, 3e38, math.inf, math.nan])
    for clip in (1e-6, 1e6, 5e36):
        factors = clip_factors(norms, clip, clipping_rule)
        assert bool(factors.isfinite().all())
        assert factors[-2:].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("settings", [{"prefix_cache": False}, {"trainable": "full"}, {}])
def test_dropout_goes_without_privacy_only(settings: dict[str, object]) -> None:
    """Masks are dealt out by place: one row less gives all rows behind it other masks."""
    config = Config()
    config.model.dropout = 0.5
    for name, value in settings.items():
        setattr(config.model, name, value)
    with pytest.raises(UserError, match=r"model\.dropout"):
        validate(config)
    config.privacy.mode = "none"
    validate(config)


def test_a_batch_of_any_size_is_refused() -> None:
    config = Config()
    config.train.physical_batch = 10**9
    with pytest.raises(UserError, match=r"train\.physical_batch"):
        validate(config)


def test_the_clock_is_not_taken_for_a_row_that_failed() -> None:
    """`except Exception`, which takes errors of rows, must let the deadline through."""
    before = signal.signal(signal.SIGALRM, task._too_late)
    try:
        with pytest.raises(task.Expired):  # noqa: PT012
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            try:
                end = time.monotonic() + 5
                while time.monotonic() < end:
                    pass
            except Exception as error:
                pytest.fail(f"taken for an error: {error}")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_runs_name_alone_makes_no_plan(tmp_path: object) -> None:
    """Other noise or another rate under the same name is held by the rule for chosen mechanisms."""
    part, first = "division/train", Segment(1.0, 0.1, 1)
    with Ledger.open(f"{tmp_path}/notes.db", "notes") as ledger:

        def planned(*new: Segment, run: str = "one") -> bool:
            return is_planned(ledger.entries(), run, part, new)

        def reserve(segment: Segment, release: str) -> None:
            ledger.reserve(
                Spend("one", release, [segment], 1e-6, "steps", part), Budget(50.0, 1e-5)
            )

        reserve(Segment(30.0, 1.0, 1), "count")
        reserve(first, "round 1")
        assert planned(first)
        assert planned(Segment(1.0 + 1e-9, 0.1, 1))
        assert not planned(Segment(0.8, 0.1, 1))
        assert not planned(Segment(1.0, 0.2, 1))
        assert not planned(first, run="two")
        reserve(Segment(0.8, 0.1, 1), "round 2, with other settings")
        assert not planned(first)
