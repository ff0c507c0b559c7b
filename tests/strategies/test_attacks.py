"""Attacks that ByzFL lacks, and how attacks are run in a simulation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch

from common.errors import UserError
from strategies.attacks.free_rider import FreeRider
from strategies.attacks.inf_nan import InfNan
from strategies.attacks.ipm import IPM
from strategies.attacks.kinds import Aggregate
from strategies.attacks.loss_inflation import LossInflation
from strategies.attacks.mimic import Mimic
from strategies.attacks.min_max import MinMax
from strategies.attacks.min_sum import MinSum
from strategies.attacks.optimal_ipm import OptimalIPM
from strategies.attacks.simulate import build_attack, corrupt
from strategies.robust.mean import Mean
from strategies.robust.multi_krum import MultiKrum
from strategies.updates import Layout, Reply
from tests.strategies.oracle import random_rows, run


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def craft(attack, honest, m=2, aggregate=None):
    own = random_rows(m, honest.shape[1], seed=99)
    return attack.craft(honest, own, aggregate or (lambda x: x.mean(0)), generator())


def bisect(honest: torch.Tensor, push: torch.Tensor, excess) -> torch.Tensor:
    """The search of Shejwalkar and Houmansadr's own code, run to the end."""
    low, high = 0.0, 1e4
    mean = honest.double().mean(0)
    for _ in range(200):
        middle = (low + high) / 2
        row = mean + middle * push
        low, high = (middle, high) if excess(row) <= 0 else (low, middle)
    return mean + low * push


@pytest.mark.parametrize("along", ["std", "sign", "unit"])
@pytest.mark.parametrize("kind", [MinMax, MinSum])
def test_min_max_and_min_sum_go_exactly_as_far_as_they_may(kind, along):
    honest = random_rows(8, 300, seed=1)
    x = honest.double()
    push = {
        "std": -x.std(0),
        "sign": -torch.sign(x.mean(0)),
        "unit": -x.mean(0) / x.mean(0).norm(),
    }[along]
    gaps = torch.cdist(x, x) ** 2
    if kind is MinMax:
        expected = bisect(honest, push, lambda r: ((x - r) ** 2).sum(1).max() - gaps.max())
    else:
        expected = bisect(honest, push, lambda r: ((x - r) ** 2).sum() - gaps.sum(1).max())
    rows = craft(kind(along), honest)
    assert rows.shape == (2, 300)
    torch.testing.assert_close(rows[1].double(), expected, rtol=1e-4, atol=1e-4)


def test_a_tuned_attack_does_more_damage_to_the_rule_in_use_than_a_fixed_one():
    honest = random_rows(8, 200, seed=2)

    def rule(x):
        return run(MultiKrum(2), x).update

    def damage(attack):
        rows = craft(attack, honest, aggregate=rule)
        return float((rule(torch.cat([honest, rows])) - honest.mean(0)).norm())

    assert damage(OptimalIPM()) >= max(damage(IPM(t)) for t in (0.0, 10.0))
    against_mean = craft(OptimalIPM(), honest, aggregate=lambda x: run(Mean(), x).update)
    assert float(against_mean.norm()) > 1000 * float(honest.norm())


def test_free_rider():
    honest = random_rows(9, 50, seed=3)
    assert not bool(craft(FreeRider(), honest).any())
    disguised = craft(FreeRider(disguise=1.0), honest)
    length = honest.norm(dim=1).median()
    torch.testing.assert_close(disguised.norm(dim=1), length.expand(2))
    assert not torch.equal(disguised[0], disguised[1])


def test_loss_inflation_lies_and_turns_its_update_around():
    attack = LossInflation(loss=9.0, examples_factor=10.0)
    assert attack.metrics({"loss": 0.5, "examples": 100.0, "accuracy": 0.6}) == {
        "loss": 9.0,
        "examples": 1000.0,
        "accuracy": 0.6,
    }
    own = random_rows(2, 50, seed=99)
    assert torch.equal(craft(attack, random_rows(5, 50, seed=4)), -own)


LAYOUT = Layout(("w",), ((4,),))


def replies() -> list[Reply]:
    return [
        Reply(name, {"w": torch.full((4,), float(i + 1))}, {"loss": 0.5, "examples": 10.0})
        for i, name in enumerate("abcd")
    ]


def averaging(_: Sequence[Reply]) -> Aggregate:
    return lambda matrix: matrix.mean(0)


def test_corrupt_changes_the_malicious_replies_alone_and_keeps_the_order():
    out = corrupt(IPM(1.0), replies(), {"b", "d"}, LAYOUT, averaging, generator())
    assert [r.partner for r in out] == list("abcd")
    assert [float(r.delta["w"][0]) for r in out] == [1, -2, 3, -2]  # honest: 1 and 3
    lied = corrupt(LossInflation(), replies(), {"a"}, LAYOUT, averaging, generator())
    assert [r.metrics["loss"] for r in lied] == [5.0, 0.5, 0.5, 0.5]
    assert float(lied[0].delta["w"][0]) == -1


def test_a_tuned_attack_sees_the_rule_in_use():
    asked, seen = [], []

    def rule(rows):
        asked.append([reply.partner for reply in rows])

        def merged(matrix):
            seen.append(matrix.clone())
            return matrix.mean(0)

        return merged

    corrupt(OptimalIPM(evaluations=3), replies(), {"b"}, LAYOUT, rule, generator())
    # The rule weighs rows by partner: it must be told whose they are, in their order.
    assert asked == [["a", "c", "d", "b"]]
    assert [m[:3, 0].tolist() for m in seen] == [[1, 3, 4]] * 3


def test_build_attack():
    assert build_attack(None) is None
    assert build_attack({"_target_": None, "partners": [], "count": 0}) is None
    assert build_attack({"_target_": "simulation.attacks.label_flip.LabelFlip"}) is None
    config = {"_target_": "strategies.attacks.ipm.IPM", "partners": ["a"], "count": 1, "tau": 0.5}
    assert build_attack(config) == IPM(0.5)
    with pytest.raises(UserError, match=r"attack\.tau: must be a finite number"):
        build_attack({**config, "tau": math.inf})
    with pytest.raises(UserError, match=r"attack\.tua: is not a setting of IPM"):
        build_attack({**config, "tua": 1.0})
    with pytest.raises(UserError, match=r"attack\._target_: must name a class under"):
        build_attack({"_target_": "strategies.robust.mean.Mean"})


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (InfNan, {"value": "big"}, "value: must be inf"),
        (MinMax, {"along": "up"}, "along: must be std, sign or unit"),
        (OptimalIPM, {"ratio": 0.5}, "ratio: must be > 0.5"),
    ],
)
def test_settings_out_of_range(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        kind(**settings)


def test_mimic_of_nobody():
    with pytest.raises(UserError, match="below 3 honest partners"):
        craft(Mimic(3), random_rows(3, 5, seed=0))
