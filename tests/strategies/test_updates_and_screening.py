"""The update matrix, and what screening refuses."""

from __future__ import annotations

import math
import re
from itertools import permutations
from pathlib import Path

import pytest
import torch

from strategies.robust.geometric_median import GeometricMedian
from strategies.robust.median import Median
from strategies.robust.multi_krum import MultiKrum
from strategies.rows import Rows
from strategies.screening import Screening
from strategies.stage import Context
from strategies.updates import Cohort, Layout, Reply

LAYOUT = Layout(("head.weight", "head.bias"), ((2, 3), (2,)))
METRICS = {"loss": 0.7, "accuracy": 0.5, "examples": 120.0, "gap": -0.2}


def delta(value: float = 1.0) -> dict[str, torch.Tensor]:
    return {"head.weight": torch.full((2, 3), value), "head.bias": torch.full((2,), -value)}


def reply(name: str = "a", value: float = 1.0, **metrics: float) -> Reply:
    return Reply(name, delta(value), {**METRICS, **metrics})


def test_layout_round_trip_in_its_own_order():
    tensors = {"head.bias": torch.tensor([7.0, 8.0]), "head.weight": torch.arange(6.0).view(2, 3)}
    flat = LAYOUT.flatten(tensors)
    assert flat.tolist() == [0, 1, 2, 3, 4, 5, 7, 8]
    views = LAYOUT.unflatten(flat)
    assert list(views) == ["head.weight", "head.bias"]
    flat[6] = 9
    assert views["head.bias"].tolist() == [9, 8]
    assert LAYOUT.size == 8
    assert Layout.of(tensors).names == ("head.bias", "head.weight")


def test_flatten_takes_half_precision_and_refuses_other_shapes():
    half = {k: v.to(torch.bfloat16) for k, v in delta(0.5).items()}
    assert LAYOUT.flatten(half).dtype == torch.float32
    with pytest.raises(ValueError, match=r"head\.bias"):
        LAYOUT.flatten({**delta(), "head.bias": torch.zeros(3)})


def test_cohort_fills_rows_as_replies_arrive():
    cohort = Cohort(LAYOUT, ["a", "b", "c"])
    assert cohort.matrix.shape == (0, 8)
    cohort.put(reply("c", 3.0))
    cohort.put(reply("a", 1.0, loss=0.1))
    assert cohort.partners == ["c", "a"]
    assert cohort.matrix[:, 0].tolist() == [3, 1]
    assert cohort.metrics[1]["loss"] == 0.1
    for name in ("a", "z"):
        with pytest.raises(ValueError, match=name):
            cohort.put(reply(name))


@pytest.mark.parametrize("order", [*list(permutations("abcd")), ("d", "b")], ids="".join)
def test_a_sorted_cohort_does_not_depend_on_the_order_of_arrival(order):
    cohort = Cohort(LAYOUT, "abcd")
    for name in order:
        cohort.put(reply(name, ord(name), loss=ord(name) / 1000))
    cohort.sort()
    assert cohort.partners == sorted(order)
    assert cohort.matrix[:, 0].tolist() == [ord(c) for c in sorted(order)]
    assert [m["loss"] for m in cohort.metrics] == [ord(c) / 1000 for c in sorted(order)]


def test_a_matrix_over_its_memory_is_mapped_and_gives_the_same_merge(tmp_path):
    names = [f"p{i}" for i in range(7)]
    layout = Layout(("w",), ((3, 4096),))
    size = 4 * 7 * layout.size
    cohorts = [Cohort(layout, names, limit, tmp_path) for limit in (size, size - 1)]
    generator = torch.Generator().manual_seed(0)
    for name in reversed(names):
        sent = Reply(name, {"w": torch.randn(3, 4096, generator=generator)}, METRICS)
        for cohort in cohorts:
            cohort.put(sent)
    for cohort in cohorts:
        cohort.sort()
    # A file without a name: gone with the process, however that ends.
    mapped = Path("/proc/self/maps")
    if mapped.exists():
        assert mapped.read_text().count(str(tmp_path)) == 1
    assert list(tmp_path.iterdir()) == []
    for rule in (Median(), MultiKrum(f=1), GeometricMedian()):
        context = Context(torch.Generator().manual_seed(1), None)
        weights = torch.full((7,), 1 / 7, dtype=torch.float64)
        merged = [rule.apply(Rows(c.matrix), weights, {}, context).update for c in cohorts]
        assert torch.equal(*merged)


def test_screening_accepts_what_is_well_formed():
    assert Screening(max_norm=3.0, required=("loss",)).check(reply(), LAYOUT) is None
    double = Reply("a", {k: v.double() for k, v in delta().items()}, METRICS)
    assert Screening().check(double, LAYOUT) is None
    negative_count = reply(examples=-4.0)
    assert Screening().check(negative_count, LAYOUT) is None


BAD_DELTAS = [
    ({"head.weight": torch.ones(2, 3)}, "lacks 1 tensor"),
    ({**delta(), "extra": torch.ones(1)}, "1 unknown tensor.*extra"),
    ({**delta(), "head.bias": torch.ones(3)}, r"head\.bias has shape \[3\], expected \[2\]"),
    ({**delta(), "head.bias": torch.ones(2, dtype=torch.int64)}, "dtype"),
    ({**delta(), "head.bias": torch.tensor([1.0, math.nan])}, r"head\.bias contains NaN or Inf"),
    ({**delta(), "head.bias": torch.tensor([1.0, math.inf])}, "NaN or Inf"),
    ({**delta(), "head.bias": torch.tensor([1.0, -math.inf]).half()}, "NaN or Inf"),
    ({**delta(), "head.bias": torch.tensor([1.0, 1e300]).double()}, "norm 1e\\+300|NaN or Inf"),
    ({**delta(), "head.bias": torch.tensor([1.0, 3e38])}, r"norm 3e\+38 is above the bound 1e\+12"),
    (delta(10.0), r"norm 28.3 is above the bound 20"),
]


@pytest.mark.parametrize(("tensors", "reason"), BAD_DELTAS)
def test_screening_refuses_malformed_updates(tensors, reason):
    bound = 20.0 if "bound 20" in reason else None
    found = Screening(max_norm=bound).check(Reply("a", tensors, METRICS), LAYOUT)
    assert found is not None

    assert re.search(reason, found), found


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        ({"loss": math.nan}, "loss is not finite"),
        ({"loss": -0.1}, r"loss is -0.1, outside \[0, 20\]"),
        ({"loss": 1e6}, "outside"),
        ({"accuracy": 1.2}, "accuracy is 1.2"),
        ({"examples": math.inf}, "examples is not finite"),
        ({"gap": -1.5}, "gap"),
        ({"loss": "high"}, "not a number"),
        ({"loss": None}, "not a number"),
    ],
)
def test_screening_refuses_impossible_metrics(metrics, reason):

    found = Screening().check(reply(**metrics), LAYOUT)
    assert found is not None
    assert re.search(reason, found), found


def test_screening_refuses_a_reply_without_the_metrics_that_weights_need():
    bare = Reply("a", delta(), {"accuracy": 0.5, "epsilon": math.inf})
    assert Screening().check(bare, LAYOUT) is None
    assert Screening(required=("loss",)).check(bare, LAYOUT) == (
        "the metric loss is missing, and the weights need it"
    )


def test_settings_out_of_range():
    with pytest.raises(ValueError, match="max_norm"):
        Screening(max_norm=0.0)
    with pytest.raises(ValueError, match="max_loss"):
        Screening(max_loss=-1.0)
