from __future__ import annotations

from dataclasses import replace

import pytest
from omegaconf import OmegaConf

from common.data.check import check_data
from common.data.schema import (
    Block,
    Columns,
    DataConfig,
    PartitionConfig,
    check_partition,
)
from common.data.sources import SOURCES
from common.errors import UserError


def test_configs_survive_omegaconf():
    data = DataConfig(path="a.csv", columns=Columns(groups=["g"], split="s"), labels=["0", "1"])
    parts = PartitionConfig(blocks={"a": Block(sizes=[3, 4], where={"g": "x"})})
    for config in (data, parts):
        assert OmegaConf.to_object(OmegaConf.structured(config)) == config


def test_columns_are_read_once():
    columns = Columns(text="t", label="l", groups=["g", "l"], split="g")
    assert columns.all() == ["t", "l", "g"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "excel"}, f"data.source must be one of {', '.join(SOURCES)}"),
        ({"delimiter": ";;"}, "data.delimiter must be one character"),
        ({"validation_fraction": 1.0}, "data.validation_fraction must be at least 0 and less"),
        ({"test_fraction": -0.1}, "data.test_fraction must be at least 0 and less than 1"),
        ({"test_rows": 0}, "data.test_rows must be at least 1"),
        ({"test_by": "source"}, "data.test_by is used with data.test_rows only"),
        ({"labels": ["a", "a"]}, "data.labels has the same name twice"),
        ({"labels": ["a"]}, "data.labels must have at least two names"),
    ],
)
def test_data_settings_that_cannot_work(change, message):
    with pytest.raises(UserError, match=message):
        check_data(replace(DataConfig(), **change))


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (Block(kind="random", partners=2), "partition.blocks.a.kind must be one of iid"),
        (Block(), "partition.blocks.a: set partners"),
        (Block(partners=3, sizes=[5, 5]), "partition.blocks.a.partners is not the length of"),
        (Block(sizes=[5, 1]), "partition.blocks.a.sizes has less than partition.min_rows=2 rows"),
        (Block(kind="linear", sizes=[5, 5]), "sizes is used with kinds iid and dirichlet only"),
        (Block(kind="natural"), "partition.blocks.a.by is not set"),
        (Block(kind="natural", by="g", partners=2), "kind natural takes its partners from"),
        (Block(partners=2, by="g"), "partition.blocks.a.by is used with kind natural only"),
        (Block(kind="dirichlet", partners=2, alpha=0.0), "partition.blocks.a.alpha must be more"),
    ],
)
def test_blocks_that_cannot_work(block, message):
    with pytest.raises(UserError, match=message):
        check_partition(PartitionConfig(blocks={"a": block}))


def test_a_partition_needs_a_block():
    with pytest.raises(UserError, match=r"partition\.blocks is empty"):
        check_partition(PartitionConfig())
