from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.data.schema import DataConfig
from common.data.split import hold_out, split_partner, uniforms
from common.errors import UserError

MANY = [f"text {i}" for i in range(4000)]
MASK = 2**64 - 1


def sides(table, fraction, seed):
    found = split_partner(table, fraction, seed)
    return found.train, found.validation


def splitmix64(state):
    """The reference in plain integers: one step of SplitMix64 from ``state``."""
    z = (state + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def test_uniforms_are_splitmix64():
    assert splitmix64(1234567) == 6457827717110365317  # published first output for this seed
    keys = np.array([0, 1, 2**63, MASK], dtype=np.uint64)
    for seed in (0, 7, MASK):
        expected = [(splitmix64(int(k) ^ splitmix64(seed)) >> 11) / 2**53 for k in keys]
        assert uniforms(keys, seed).tolist() == expected


def test_uniforms_are_uniform_and_differ_by_seed(make_table):
    keys = make_table(MANY, [0] * len(MANY)).keys
    first, second = uniforms(keys, 0), uniforms(keys, 1)
    counts = np.histogram(first, bins=10, range=(0, 1))[0]
    assert ((counts - 400) ** 2 / 400).sum() < 27.9  # chi-squared, 9 degrees, p = 0.001
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 30), min_size=1), st.floats(0, 0.99), st.integers(0, 2**62))
def test_sides_are_disjoint_whole_and_share_no_text(make_table, numbers, fraction, seed):
    texts = [f"t{n}" for n in numbers]
    train, validation = sides(make_table(texts, [0] * len(texts)), fraction, seed)
    assert sorted([*train, *validation]) == list(range(len(texts)))
    assert not {texts[i] for i in train} & {texts[i] for i in validation}


def test_the_share_is_right_and_the_seed_matters(make_table):
    table = make_table(MANY, [0] * len(MANY))
    train, validation = sides(table, 0.1, 3)
    assert abs(len(validation) - 400) < 4 * (4000 * 0.1 * 0.9) ** 0.5
    np.testing.assert_array_equal(sides(table, 0.1, 3)[1], validation)
    assert len(np.intersect1d(sides(table, 0.1, 4)[1], validation)) < 100
    assert len(sides(table, 0.0, 3)[1]) == 0
    np.testing.assert_array_equal(np.union1d(train, validation), np.arange(4000))


def test_one_record_more_changes_one_side_by_that_record(make_table):
    # The premise of parallel composition: every other record stays where it is.
    whole, less = MANY[:300], MANY[1:300]
    parts = [{whole[i] for i in s} for s in sides(make_table(whole, [0] * 300), 0.3, 5)]
    fewer = [{less[i] for i in s} for s in sides(make_table(less, [0] * 299), 0.3, 5)]
    assert [part - {whole[0]} for part in parts] == fewer
    assert sorted(len(a ^ b) for a, b in zip(parts, fewer, strict=True)) == [0, 1]


def test_a_split_column_decides(make_table):
    fold = ["validation", "train", "test", "train"]
    table = make_table(["a", "b", "c", "d"], [0] * 4, split=fold)
    train, validation = sides(table, 0.9, 0)
    assert (train.tolist(), validation.tolist()) == ([1, 3], [0])
    assert [part.tolist() for part in hold_out(table, DataConfig())] == [[0, 1, 3], [2]]


def test_held_out_rows_of_each_group(make_table):
    groups = ["a"] * 300 + ["b"] * 100
    table = make_table(MANY[:400], [0] * 400, site=groups)
    config = DataConfig(test_rows=50, test_by="site")
    train, test = hold_out(table, config)
    assert np.unique(table.groups["site"][test].astype(str), return_counts=True)[1].tolist() == [
        50,
        50,
    ]
    np.testing.assert_array_equal(np.union1d(train, test), np.arange(400))
    assert len(train) == 300
    again = hold_out(table.select(np.arange(400)[::-1]), config)[1]
    assert {399 - i for i in again} == set(test.tolist())  # whatever the order of the file
    with pytest.raises(UserError, match="test_rows=100 leaves nothing to train on: there are 100"):
        hold_out(table, DataConfig(test_rows=100, test_by="site"))
    with pytest.raises(UserError, match="test_by=ward is not one of data"):
        hold_out(table, DataConfig(test_rows=10, test_by="ward"))


def test_no_text_is_held_out_and_trained_on(make_table):
    texts = [f"t{i % 40}" for i in range(200)]
    for config in (DataConfig(test_rows=33), DataConfig(test_fraction=0.3)):
        train, test = hold_out(make_table(texts, [0] * 200), config)
        assert not {texts[i] for i in train} & {texts[i] for i in test}
        assert len(train)
        assert len(test)
