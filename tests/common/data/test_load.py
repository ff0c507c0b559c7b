from __future__ import annotations

from dataclasses import replace

import pytest

from common.data import load
from common.data.schema import Columns, DataConfig
from common.errors import UserError


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "train.csv"
    rows = (
        f"text {i},{'yes' if i % 3 else 'no'},{'test' if i > 89 else 'train'}" for i in range(100)
    )
    path.write_text("text,label,fold\n" + "\n".join(rows))
    return DataConfig(source="csv", path=str(path), labels=["no", "yes"])


def test_rows_are_held_out(config, cache):
    train, test = load.training_table(config, cache), load.test_table(config, cache)
    assert sorted([*train.texts, *test.texts]) == sorted(f"text {i}" for i in range(100))
    assert 2 < len(test) < 25


def test_a_test_set_of_its_own(config, cache, tmp_path):
    path = tmp_path / "test.csv"
    path.write_text("text,label,fold\nnew,yes,test\n")
    config = replace(config, test_path=str(path))
    assert len(load.training_table(config, cache)) == 100
    assert list(load.test_table(config, cache).texts) == ["new"]
    marked = replace(config, columns=Columns(split="fold"))
    assert len(load.training_table(marked, cache)) == 90
    assert load.test_table(marked, cache).split is None
    path.write_text("text,label\nnew,perhaps\n")
    with pytest.raises(UserError, match=r"test\.csv: row 1 \(line 2\), column 'label'"):
        load.test_table(config, cache)
    with pytest.raises(UserError, match=r"no file matches data\.test_path: "):
        load.test_table(replace(config, test_path=str(tmp_path / "none.csv")), cache)


def test_a_split_column_marks_the_test_set(config, cache):
    config = replace(config, columns=Columns(split="fold"), test_fraction=0.0)
    assert sorted(load.test_table(config, cache).texts) == [f"text {i}" for i in range(90, 100)]
    assert len(load.training_table(config, cache)) == 90


def test_without_a_test_set(config, cache):
    config = replace(config, test_fraction=0.0)
    assert load.test_table(config, cache) is None
    assert len(load.training_table(config, cache)) == 100
    assert load.test_table(replace(config, path=None, test_fraction=0.1), cache) is None


def test_labels_of_the_config_or_of_the_data(config, cache, tmp_path):
    assert load.resolve_labels(config, cache) == ["no", "yes"]
    assert load.resolve_labels(replace(config, labels=[]), cache) == ["no", "yes"]
    assert load.resolve_labels(DataConfig(), cache) == ["negative", "positive"]
    (tmp_path / "train.csv").write_text("text,label\nx,yes\n")
    with pytest.raises(UserError, match="column 'label' has one label only"):
        load.resolve_labels(replace(config, labels=[]), cache)


def test_rows_of_other_values_are_left_out_of_both_sides(config, cache):
    config = replace(config, columns=Columns(groups=["fold"]), where={"fold": "test"})
    train, test = load.training_table(config, cache), load.test_table(config, cache)
    assert sorted([*train.texts, *test.texts]) == [f"text {i}" for i in range(90, 100)]
    with pytest.raises(UserError, match=r"data\.where: no row has these values"):
        load.training_table(replace(config, where={"fold": "none"}), cache)
    with pytest.raises(UserError, match=r"data\.where: 'label' is not one of data\.columns"):
        load.training_table(replace(config, where={"label": "yes"}), cache)
