from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def table(make_table):
    return make_table(["a", "b", "c", "b"], [0, 1, 0, 1], site=["x", "y", None, "x"])


def test_texts_are_a_sequence(table):
    assert table.texts[1] == "b"
    assert table.texts[-2] == "c"
    assert table.texts[1:3] == ["b", "c"]
    assert list(reversed(table.texts)) == ["b", "c", "b", "a"]
    assert "c" in table.texts
    with pytest.raises(IndexError):
        table.texts[4]


def test_select_keeps_records_together(table):
    chosen = table.select([3, 2, 0]).select(np.array([True, True, False]))
    assert list(chosen.texts) == ["b", "c"]
    assert chosen.texts.arrow.to_pylist() == ["b", "c"]
    assert chosen.labels.tolist() == [1, 0]
    assert chosen.groups["site"].tolist() == ["x", ""]
    assert [chosen.place(i) for i in range(2)] == ["test: row 4", "test: row 3"]
    assert len(chosen.select([])) == 0
    assert list(chosen.select([]).texts) == []


def test_keys_are_equal_for_equal_texts_only(table):
    assert table.keys[1] == table.keys[3]
    assert len(set(table.keys.tolist())) == 3


def test_fingerprint_tells_texts_labels_and_order(table, make_table):
    same = make_table(["a", "b", "c", "b"], [0, 1, 0, 1])
    assert table.fingerprint() == same.fingerprint()
    others = [
        make_table(["a", "b", "c", "B"], [0, 1, 0, 1]),
        make_table(["a", "b", "c", "b"], [0, 1, 0, 0]),
        table.select([1, 0, 2, 3]),
        table.select([0, 1, 2]),
    ]
    assert len({t.fingerprint() for t in [table, *others]}) == 5
