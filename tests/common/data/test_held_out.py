"""Test rows stay out of training, and what is not read is told."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.data import load
from common.data.reader import read
from common.data.schema import DataConfig
from common.data.split import hold_out, split_partner
from common.errors import UserError

HEAD = "text,label\n"


def written(folder: Path, **files: str) -> DataConfig:
    for name, rows in files.items():
        (folder / f"{name}.csv").write_text(HEAD + rows)
    return DataConfig(source="csv", path=str(folder), labels=["neg", "pos"])


def test_the_test_file_is_taken_out_of_the_glob(tmp_path: Path) -> None:
    config = written(tmp_path, train="a,neg\nb,pos\n", test="c,neg\n")
    for path in (str(tmp_path), f"{tmp_path}/*.csv"):
        own = replace(config, path=path, test_path=f"{tmp_path}/../{tmp_path.name}/test.csv")
        assert list(load.training_table(own, tmp_path / "cache").texts) == ["a", "b"]
        told = load.notes(own, tmp_path / "cache")
        assert told == [f"{tmp_path}/test.csv is not trained on: it is in data.test_path"]
    with pytest.raises(UserError, match=r"data\.path: all of its 1 files are in data\.test_path"):
        load.training_table(
            replace(config, path=f"{tmp_path}/test.csv", test_path=f"{tmp_path}/test.csv"),
            tmp_path / "cache",
        )


def test_texts_of_the_test_set_are_not_trained_on(tmp_path: Path) -> None:
    train, test = tmp_path / "train", tmp_path / "test"
    train.mkdir()
    test.mkdir()
    config = written(train, a="Good film,pos\nbad,neg\nGOOD  film ,pos\n")
    written(test, t="good film,pos\n")
    config = replace(config, test_path=str(test))
    assert list(load.training_table(config, tmp_path / "cache").texts) == ["bad"]
    assert load.notes(config, tmp_path / "cache") == [
        "2 rows are not trained on: the test set has their texts too"
    ]
    written(test, t="good film,pos\nbad,neg\n")
    with pytest.raises(UserError, match="the test set has every text"):
        load.training_table(config, tmp_path / "cache")


def test_twins_but_for_case_and_white_space_are_on_one_side(tmp_path: Path) -> None:
    texts = [f"Text  number {i} ß" for i in range(200)]
    twins = [f"text number {i} SS " for i in range(200)]
    rows = "".join(f"{text},neg\n" for text in texts + twins)
    table = read(written(tmp_path, a=rows))
    for one, other in (
        hold_out(table, DataConfig(test_fraction=0.3)),
        hold_out(table, DataConfig(test_rows=50)),
        (lambda s: (s.train, s.validation))(split_partner(table, 0.3, 1)),
    ):
        assert len(one)
        assert len(other)
        assert not set((one % 200).tolist()) & set((other % 200).tolist())
    assert len(np.unique(table.keys)) == 400


def test_parts_without_rows_are_passed_over_and_told(tmp_path: Path) -> None:
    config = written(tmp_path, a="x,neg\ny,pos\n", b="")
    (tmp_path / "c.csv").write_text("")
    assert list(read(config).texts) == ["x", "y"]
    assert load.notes(config, tmp_path / "cache") == [
        f"{tmp_path}/b.csv has no data rows",
        f"{tmp_path}/c.csv has no data rows",
    ]
    written(tmp_path, a="")
    with pytest.raises(UserError, match=r"a\.csv has no data rows, and so have 2 others"):
        read(config)


def test_a_label_without_rows_is_told(tmp_path: Path) -> None:
    config = written(tmp_path, a="x,neg\n")
    assert load.notes(config, tmp_path / "cache") == ["no row has the label pos"]


def test_what_a_folder_leaves_out_is_told(tmp_path: Path) -> None:
    config = written(tmp_path, a="x,neg\nz,pos\n")
    cache = tmp_path.parent / f"{tmp_path.name}-cache"
    assert load.notes(config, cache) == []
    (tmp_path / "b.xlsx").write_text("")
    (tmp_path / "README").write_text("")
    (tmp_path / "sub").mkdir()
    written(tmp_path / "sub", c="y,pos\n")
    assert load.notes(config, cache) == [
        f"{tmp_path}: 2 files are not read: README, b.xlsx",
        f"{tmp_path}: folders within are not read: sub",
    ]
    deep = replace(config, path=f"{tmp_path}/**/*.csv")
    assert load.notes(deep, cache) == [f"{tmp_path}: 2 files are not read: README, b.xlsx"]
    assert len(read(deep)) == 3


def test_compressed_and_other_usual_files_of_a_folder_are_read(tmp_path: Path) -> None:
    config = written(tmp_path, a="x,neg\n")
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress((HEAD + "y,pos\n").encode()))
    (tmp_path / "c.tsv").write_text("text\tlabel\nz, z\tneg\n")
    (tmp_path / "d.TSV.GZ").write_bytes(gzip.compress(b"text\tlabel\nw\tneg\n"))
    assert list(read(config).texts) == ["x", "y", "z, z", "w"]
    lines = tmp_path / "lines"
    lines.mkdir()
    for name in ("a.jsonl", "b.ndjson"):
        (lines / name).write_text('{"text": "x", "label": "neg"}\n')
    (lines / "c.jsonl.gz").write_bytes(gzip.compress((lines / "a.jsonl").read_bytes()))
    assert len(read(replace(config, source="json", path=str(lines)))) == 3
    broken = tmp_path / "b.csv.gz"
    broken.write_bytes(broken.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"b\.csv\.gz is not a whole gzip file"):
        read(config)
