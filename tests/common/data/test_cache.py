from __future__ import annotations

import os
import stat
from dataclasses import replace

import numpy as np
import pytest

from common.data import cache
from common.data.cache import cached_table
from common.data.reader import read
from common.data.schema import Columns, DataConfig
from common.errors import UserError

CONTENT = "text,label,site,fold\none,neg,a,train\ntwo,pos,,test\n"


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "n.csv"
    path.write_text(CONTENT)
    columns = Columns(groups=["site"], split="fold")
    return DataConfig(source="csv", path=str(path), labels=["neg", "pos"], columns=columns)


@pytest.fixture
def reads(monkeypatch):
    """Counts how often the source itself is read."""
    calls = []

    def counting(*args, **kwargs):
        calls.append(args)
        return read(*args, **kwargs)

    monkeypatch.setattr(cache, "read", counting)
    return calls


def entries(folder):
    return sorted(folder.glob("*.arrow"))


def test_the_cached_table_is_the_table(config, tmp_path, reads):
    expected = read(config)
    for _ in range(2):
        table = cached_table(config, tmp_path / "cache")
        assert list(table.texts) == list(expected.texts)
        assert table.label_names == expected.label_names
        assert table.files == expected.files
        for name in ("labels", "split", "keys", "file_ids", "rows"):
            np.testing.assert_array_equal(getattr(table, name), getattr(expected, name))
            assert getattr(table, name).dtype == getattr(expected, name).dtype
        assert table.groups["site"].tolist() == ["a", ""]
        assert table.fingerprint() == expected.fingerprint()
    assert len(reads) == 1


def test_only_the_user_can_look_in(config, tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o777)
    cached_table(config, folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [stat.S_IMODE(f.stat().st_mode) for f in folder.iterdir()] == [0o600]


def test_a_changed_file_is_read_anew_and_its_old_table_deleted(config, tmp_path, reads):
    folder, path = tmp_path / "cache", tmp_path / "n.csv"
    cached_table(config, folder)
    path.write_text(CONTENT + "three,pos,b,train\n")
    assert len(cached_table(config, folder)) == 3
    status = path.stat()
    path.write_text(CONTENT.replace("two", "TWO") + "three,pos,b,train\n")
    # As rsync and a restored backup leave it: the same size and the same time.
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert cached_table(config, folder).texts[1] == "TWO"
    assert len(reads) == 3
    assert len(entries(folder)) == 1


def test_a_new_file_of_the_glob_is_seen(config, tmp_path):
    config = replace(config, path=str(tmp_path / "*.csv"))
    assert len(cached_table(config, tmp_path / "cache")) == 2
    (tmp_path / "o.csv").write_text(CONTENT)
    assert len(cached_table(config, tmp_path / "cache")) == 4


def test_what_changes_reading_has_its_own_entry(config, tmp_path, reads):
    folder = tmp_path / "cache"
    cached_table(config, folder)
    cached_table(replace(config, columns=Columns()), folder)
    cached_table(replace(config, labels=["pos", "neg"]), folder)
    cached_table(replace(config, labels=[]), folder, discover=True)
    assert len(reads) == len(entries(folder)) == 4
    cached_table(replace(config, validation_fraction=0.3, test_fraction=0.0), folder)
    assert len(reads) == 4


def test_a_fault_leaves_nothing_behind(config, tmp_path):
    (tmp_path / "n.csv").write_text(CONTENT + "x,what,a,train\n")
    with pytest.raises(UserError):
        cached_table(config, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_database_is_read_every_time(tmp_path, monkeypatch, reads):
    monkeypatch.setenv("URL", "sqlite://")
    query = "select 'x' as text, 'a' as label"
    config = DataConfig(source="sql", sql_url_env="URL", sql_query=query, labels=["a", "b"])
    for _ in range(2):
        assert len(cached_table(config, tmp_path / "cache")) == 1
    assert len(reads) == 2
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_folder_that_cannot_be_used(config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"the cache folder .*file cannot be used"):
        cached_table(config, tmp_path / "file")
