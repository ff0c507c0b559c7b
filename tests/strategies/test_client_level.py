"""Client-level privacy: one partner moves the sum by at most the clip, and nothing else does."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from dp_accounting import dp_event
from dp_accounting.pld import PLDAccountant
from torch import Tensor

from common.errors import UserError
from simulation.seeded_streams import SeededStream
from strategies.build import build
from strategies.client_level import gaussian_epsilon
from strategies.pipeline import Pipeline
from strategies.updates import Cohort, Layout, Reply
from tests.strategies.test_pipeline import composed, root  # noqa: F401

LAYOUT = Layout(("w",), ((400,),))
ON = ("strategy/client_level=on", "strategy/server=fedavg", "strategy.client_level.clip=0.5")


def merged(pipeline: Pipeline, updates: dict[str, Tensor], asked: int, noise: int = 3) -> Tensor:
    cohort = Cohort(LAYOUT, [f"p{i}" for i in range(asked)])
    for name, update in updates.items():
        cohort.put(Reply(name, {"w": update}, {}))
    cohort.sort()
    outcome = pipeline.aggregate(
        cohort,
        torch.zeros(LAYOUT.size),
        pipeline.init(LAYOUT, cohort.partners),
        1,
        1,
        torch.Generator().manual_seed(1),
        noise=SeededStream(noise),
    )
    return outcome.update.double()


@pytest.mark.parametrize("size", [1e-3, 0.5, 1.0, 1e6, 1e11])
def test_one_partner_moves_the_sum_by_at_most_the_clip(
    root: Path,  # noqa: F811
    size: float,
) -> None:
    pipeline = build(composed(root, *ON)["strategy"])
    g = torch.Generator().manual_seed(7)
    others = {f"p{i}": torch.randn(400, generator=g) * 10.0 ** (i - 2) for i in range(5)}
    for direction in (torch.randn(400, generator=g), -others["p4"]):
        extra = direction / direction.norm() * size
        near = merged(pipeline, {**others, "p5": extra}, 6) - merged(pipeline, others, 6)
        # The same noise cancels.  Over m = 6, the number asked, whoever replied.
        assert float(near.norm()) * 6 <= 0.5 * (1 + 1e-3)
        assert float(near.norm()) * 6 == pytest.approx(min(size, 0.5), rel=2e-2, abs=1e-4)


def test_weights_over_the_replies_would_break_the_bound(root: Path) -> None:  # noqa: F811
    """The alarm of the test above: dividing by the number of replies moves the others too."""
    pipeline = build(composed(root, *ON)["strategy"])
    same = torch.ones(400) / 20
    others = {f"p{i}": same for i in range(5)}
    six, five = merged(pipeline, {**others, "p5": -same}, 6), merged(pipeline, others, 5)
    assert float((six - five).norm()) * 6 > 0.5 * 1.5


def test_noise_has_the_stated_size(root: Path) -> None:  # noqa: F811
    settings = composed(root, *ON, "strategy.client_level.noise_multiplier=4")["strategy"]
    updates = {f"p{i}": torch.zeros(400) for i in range(4)}
    runs = torch.stack([merged(build(settings), updates, 4, noise=s) for s in range(40)])
    assert float(runs.std()) == pytest.approx(4 * 0.5 / 4, rel=0.03)


@pytest.mark.parametrize(
    ("override", "who"),
    [
        ("strategy/pre=[arc]", "ARC"),
        ("strategy/pre=[nnm]", "NNM"),
        ("strategy/pre=[bucketing]", "Bucketing"),
        ("strategy/fair=qffl", "QFFL"),
        ("strategy/fair=by_examples", "ByExamples"),
        ("strategy/robust=median", "Median"),
        ("strategy/robust=krum", "Krum"),
        ("strategy/robust=centred_clipping", "CentredClipping"),
        ("strategy/appeal=on", "appeal"),
    ],
)
def test_where_the_proof_does_not_hold_it_is_refused_by_name(
    root: Path,  # noqa: F811
    override: str,
    who: str,
) -> None:
    with pytest.raises(UserError, match=rf"(?i){who}.*strategy\.client_level does not hold"):
        build(composed(root, *ON, override)["strategy"])


def test_static_clipping_may_stay(root: Path) -> None:  # noqa: F811
    settings: dict[str, Any] = composed(root, *ON, "strategy/pre=[static_clipping]")["strategy"]
    assert build(settings).client_level is not None


@pytest.mark.parametrize("z", [0.5, 1.0, 5.0, 30.0])
@pytest.mark.parametrize("rounds", [1, 16, 200])
def test_epsilon_against_dp_accounting(z: float, rounds: int) -> None:
    accountant = PLDAccountant(value_discretization_interval=1e-3)
    accountant.compose(dp_event.GaussianDpEvent(z / math.sqrt(rounds)))
    theirs = accountant.get_epsilon(1e-3)
    ours = gaussian_epsilon(z, rounds, 1e-3)
    assert theirs - 2e-3 * max(theirs, 1) <= ours <= theirs + 1e-6
