"""The hub reader, on a local folder in the hub's layout."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from common.data.cache import cached_table
from common.data.reader import read
from common.data.schema import Columns, DataConfig
from common.errors import UserError


@pytest.fixture
def config(tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "train.csv").write_text("text,label,more\none,neg,x\ntwo,pos,y\n")
    (folder / "test.csv").write_text("text,label,more\nthree,pos,z\n")
    return DataConfig(
        source="hub", path=str(folder), labels=["neg", "pos"], columns=Columns(groups=["more"])
    )


def test_splits(config, tmp_path):
    table = read(config, downloads=tmp_path / "hub")
    assert list(table.texts) == ["one", "two"]
    assert table.labels.tolist() == [0, 1]
    assert table.groups["more"].tolist() == ["x", "y"]
    assert table.place(1) == f"{config.path}[train]: row 2"
    assert list(read(config, "test").texts) == ["three"]


def test_a_local_folder_that_has_changed_is_read_anew(config, tmp_path):
    cache, file = tmp_path / "cache", tmp_path / "notes" / "train.csv"
    assert cached_table(config, cache).texts[0] == "one"
    status = file.stat()
    file.write_text(file.read_text().replace("one", "ONE"))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert cached_table(config, cache).texts[0] == "ONE"


def test_faults(config):
    with pytest.raises(UserError, match=r"\[train\]: no column 'note' \(columns: text, label, mo"):
        read(replace(config, columns=Columns(text="note")))
    with pytest.raises(UserError, match=r"\[dev\] cannot be loaded \(ValueError\): check data.p"):
        read(config, "dev")
    with pytest.raises(UserError, match=r"nowhere\[train\] cannot be loaded \(\w+\): check data"):
        read(replace(config, path=config.path + "/nowhere"))
    with pytest.raises(UserError, match=r"row 2, column 'label': the label is not one of the 2"):
        read(replace(config, labels=["neg", "other"]))
    with pytest.raises(UserError, match=r"data\.path is not set"):
        read(replace(config, path=None))
