"""Labels that could be confused are refused; how they may be written, and what is told."""

from __future__ import annotations

import unicodedata
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from common.data import load
from common.data.check import check_data
from common.data.reader import read
from common.data.schema import Columns, DataConfig
from common.data.table import Table
from common.errors import UserError

SECRET = "Geheimnis"


def written(folder: Path, labels: list[object], name: str = "n.csv") -> DataConfig:
    """A CSV file with one row for each label."""
    path = folder / name
    rows = "".join(f"{SECRET} {name} {i},{label},a\n" for i, label in enumerate(labels))
    path.write_text("text,label,site\n" + rows, encoding="utf-8")
    return DataConfig(source="csv", path=str(path), columns=Columns(groups=["site"]))


def coded(config: DataConfig) -> DataConfig:
    return replace(config, labels=["neg", "pos"], label_codes={"0": "neg", "1": "pos"})


def named(table: Table) -> list[str]:
    return [table.label_names[number] for number in table.labels]


def fails(config: DataConfig, discover: bool = False) -> str:
    with pytest.raises(UserError) as caught:
        read(config, discover=discover)
    message = str(caught.value)
    assert SECRET not in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("cells", "names"),
    [
        (["0", "1"], ["positive", "negative"]),
        (["0", "1"], ["yes", "no"]),
        (["1", "1"], ["neg", "pos"]),
        (["-1", "0"], ["a", "b"]),
        (["1.0", "0.0"], ["a", "b"]),
        (["true", "false"], ["yes", "no"]),
    ],
)
def test_codes_beside_names_are_refused(
    tmp_path: Path, cells: list[object], names: list[str]
) -> None:
    message = fails(replace(written(tmp_path, cells), labels=names))
    assert "row 1 (line 2), column 'label': the label is a" in message
    assert "data.label_codes" in message


def test_codes_are_read_as_the_configuration_maps_them(tmp_path: Path) -> None:
    config = replace(
        written(tmp_path, ["2", "1", "2.0", "1"]),
        labels=["neg", "pos"],
        label_codes={"1": "neg", "2": "pos"},
    )
    assert named(read(config)) == ["pos", "neg", "pos", "neg"]
    assert read(config).coding == "codes"
    truth = replace(
        written(tmp_path, ["true", "False"]),
        labels=["no", "yes"],
        label_codes={"true": "yes", "false": "no"},
    )
    assert named(read(truth)) == ["yes", "no"]


def test_a_code_outside_the_map_and_two_codings_are_refused(tmp_path: Path) -> None:
    message = fails(coded(written(tmp_path, ["0", "2"])))
    assert message.endswith("the label is not one of the 2 codes in data.label_codes")
    message = fails(coded(written(tmp_path, ["0", "pos"])))
    assert "row 2 (line 3), column 'label': the label is one of the names, but " in message
    assert message.endswith(
        "n.csv: row 1 (line 2) has one of the codes: write all labels in one way"
    )


def test_two_files_with_two_codings_are_refused(tmp_path: Path) -> None:
    written(tmp_path, ["neg", "pos"], "a.csv")
    written(tmp_path, ["0", "1"], "b.csv")
    config = DataConfig(
        source="csv",
        path=str(tmp_path),
        labels=["neg", "pos"],
        label_codes={"0": "neg", "1": "pos"},
    )
    assert "b.csv: row 1 (line 2), column 'label': the label is one of the codes" in fails(config)


def test_a_test_set_with_another_coding_is_refused(tmp_path: Path) -> None:
    test = written(tmp_path, ["0", "1"], "test.csv").path
    config = replace(
        written(tmp_path, ["neg", "pos"]),
        test_path=test,
        labels=["neg", "pos"],
        label_codes={"0": "neg", "1": "pos"},
    )
    assert len(load.training_table(config, tmp_path / "cache")) == 2
    with pytest.raises(UserError, match=r"test set has the codes .* others have the names"):
        load.test_table(config, tmp_path / "cache")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_codes": {"0": "a"}, "labels": ["b", "c"]}, "'a' is not one of data.labels"),
        ({"label_codes": {"0": "a", " 0": "b"}, "labels": ["a", "b"]}, "the same code twice"),
        ({"label_codes": {"1": "0"}, "labels": ["0", "1"]}, "'1' is a name of data.labels too"),
        ({"labels": ["a", "a "]}, "the same name twice"),
        ({"labels": ["a", "A"], "fold_case": True}, "the same name twice"),
    ],
)
def test_names_and_codes_that_cannot_be_told_apart(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check_data(replace(DataConfig(source="csv", path="n.csv"), **changes))  # type: ignore[arg-type]


def test_labels_are_compared_in_a_normal_form(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "schön")
    cells: list[object] = [decomposed, "schön", " schön\u00a0", "sch\u200bön", "sehr  gut"]
    config = replace(written(tmp_path, cells), labels=["sehr gut", "schön"])
    assert named(read(config)) == ["schön"] * 4 + ["sehr gut"]
    found = read(replace(config, labels=[]), discover=True)
    assert found.label_names == ("schön", "sehr gut")


def test_names_that_differ_in_case_are_told(tmp_path: Path) -> None:
    config = replace(written(tmp_path, ["Yes", "no", "YES"]), labels=["yes", "no"])
    assert fails(config).endswith("it differs from one in case alone; set data.fold_case=true")
    assert named(read(replace(config, fold_case=True))) == ["yes", "no", "yes"]
    found = replace(config, labels=[])
    assert "row 3 (line 4), column 'label': the labels here and in " in fails(found, True)
    assert read(replace(found, fold_case=True), discover=True).label_names == ("no", "yes")


@pytest.mark.parametrize("mark", ["NA", "NULL", "\\N", "NaN", "None", "n/a", "label", "['neg']"])
def test_what_no_label_is_called_is_not_discovered(tmp_path: Path, mark: str) -> None:
    cells: list[object] = ["neg", "pos"] * 5 + [mark]
    assert "row 11 (line 12), column 'label': the label " in fails(written(tmp_path, cells), True)
    config = replace(written(tmp_path, cells), labels=["neg", "pos", mark])
    assert Counter(named(read(config)))[mark] == 1


def test_numbers_beside_names_typos_and_identifiers_are_not_discovered(tmp_path: Path) -> None:
    message = fails(written(tmp_path, ["neg", "pos", "0"]), True)
    assert "n.csv: row 3 (line 4) are a number and a name" in message or "row 1" in message
    typo: list[object] = ["positive", "negative"] * 30 + ["positiv"]
    assert "differ in one letter, and one of them is rare" in fails(written(tmp_path, typo), True)
    many: list[object] = [f"ID{i:05}" for i in range(100)]
    assert "100 different labels in 100 rows: is it an identifier?" in fails(
        written(tmp_path, many), True
    )
    grades: list[object] = ["grade 1", "grade 2"] * 30 + ["grade 3"]
    assert len(read(written(tmp_path, grades), discover=True).label_names) == 3


def test_whole_numbers_are_found_however_they_are_written(tmp_path: Path) -> None:
    table = read(written(tmp_path, ["1.0", "0.0", "1", "10"]), discover=True)
    assert table.label_names == ("0", "1", "10")
    assert named(table) == ["1", "0", "1", "10"]


def test_group_values_are_read_in_the_normal_form(tmp_path: Path) -> None:
    path = tmp_path / "n.csv"
    path.write_text("text,label,site\na,neg,North\nb,pos,North \nc,pos,NORTH\n")
    config = DataConfig(
        source="csv", path=str(path), labels=["neg", "pos"], columns=Columns(groups=["site"])
    )
    assert read(config).groups["site"].tolist() == ["North", "North", "NORTH"]
    folded = read(replace(config, fold_case=True))
    assert folded.groups["site"].tolist() == ["north"] * 3
