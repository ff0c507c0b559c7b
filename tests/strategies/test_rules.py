"""What a rule must do with weights, ties and heavy tails: each test fails for a broken rule."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from strategies.robust.bulyan import Bulyan, iterated_krum
from strategies.robust.caf import CAF
from strategies.robust.centred_clipping import CentredClipping
from strategies.robust.dnc import DnC, outlier_scores
from strategies.robust.geometric_median import GeometricMedian
from strategies.robust.krum import Krum
from strategies.rows import Rows
from strategies.weights import selected_weights
from tests.strategies.oracle import context, every_rule, random_rows, relative_error, run, uniform

F = 2
RULES = every_rule(F)
CONF = Path(__file__).parents[2] / "conf/strategy/robust"


def name(rule: object) -> str:
    return type(rule).__name__


def unequal(n: int) -> Tensor:
    weights = torch.linspace(1.0, 6.0, n, dtype=torch.float64)
    return weights / weights.sum()


def test_every_rule_has_its_configuration():
    targets = {p.read_text().split("\n")[0].split(".")[-1] for p in CONF.glob("*.yaml")}
    assert targets == {name(rule) for rule in RULES}


@pytest.mark.parametrize("rule", [r for r in RULES if not isinstance(r, Krum)], ids=name)
def test_fair_weights_move_every_rule_but_krum(rule):
    x = 1.0 + 0.1 * random_rows(12, 200, seed=0)
    reference = x.mean(0)
    equal = run(rule, x, reference=reference).update
    weighted = run(rule, x, unequal(12), reference=reference)
    assert relative_error(weighted.update, equal) > 1e-4
    if not isinstance(rule, CentredClipping):
        assert float(weighted.shares.sum()) == pytest.approx(1.0, abs=1e-5)


def test_bulyan_weights_the_values_that_it_averages():
    x, w = random_rows(12, 300, seed=1, outliers=2), unequal(12)
    kept = iterated_krum(Rows(x).distances, F, 8)
    capped = selected_weights(w, kept)[kept]
    expected = []
    for column in x[kept].T.double():
        near = (column - column.sort().values[3:5].mean()).abs().argsort()[:4]
        inside = capped[near]
        expected.append(float((inside * column[near]).sum() / inside.sum()))
    assert relative_error(run(Bulyan(F), x, w).update, torch.tensor(expected)) < 1e-5


def test_caf_multiplies_its_coefficients_by_the_weights():
    x, w = random_rows(12, 200, seed=3, outliers=2), unequal(12)
    filtered = run(CAF(F), x).shares
    expected = filtered * w / (filtered * w).sum()
    torch.testing.assert_close(run(CAF(F), x, w).shares, expected)


def test_every_iteration_of_dnc_filters():
    # The second outlier stands out only in the columns of the second draw.
    x = 0.1 * random_rows(12, 4_000, seed=2)
    rule = DnC(1, columns=3, iterations=4)
    g = torch.Generator().manual_seed(0)
    dropped = set()
    for _ in range(4):
        scores = outlier_scores(x[:, torch.randint(4_000, (3,), generator=g)])
        dropped.add(int(scores.argmax()))
    assert len(dropped) > 1
    found = run(rule, x).shares
    assert set((found == 0).nonzero().squeeze(1).tolist()) == dropped


def test_the_geometric_median_goes_on_until_it_stands_still():
    # A cluster of near half the weight and a heavy tail: Weiszfeld's steps shrink slowly.
    g = torch.Generator().manual_seed(0)
    x = torch.randn(11, 30, generator=g).double()
    x[5:] += 10 * torch.randn(6, 30, generator=g) / torch.rand(6, 1, generator=g)
    x[:5] *= 1e-3
    z = run(GeometricMedian(F), x.float()).update.double().requires_grad_(True)
    (x - z).norm(dim=1).sum().backward()
    assert z.grad is not None
    assert float(z.grad.norm()) < 1e-4


def test_centred_clipping_clips_to_the_median_distance_of_each_step():
    x = random_rows(10, 300, seed=5, outliers=2).double()
    w, centre = unequal(10), 0.3 * random_rows(1, 300, seed=6)[0]
    expected = centre.double()
    for _ in range(3):
        gaps = x - expected
        lengths = gaps.norm(dim=1)
        factors = (lengths.median() / lengths).clamp_max(1.0)
        expected = expected + ((w * factors)[:, None] * gaps).sum(0)
    rule = CentredClipping(F)
    found = rule.apply(Rows(x.float()), w, {"centre": centre}, context())
    assert relative_error(found.update, expected) < 1e-5


@pytest.mark.parametrize("rule", RULES, ids=name)
def test_equal_rows_and_an_offset_leave_no_rounding_behind(rule):
    x = (1e3 + torch.arange(50.0)).expand(11, 50).contiguous()
    result = run(rule, x, uniform(11), reference=x[0])
    assert relative_error(result.update, x[0]) < 1e-6
