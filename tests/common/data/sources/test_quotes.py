"""Stray quotes: rows that they would swallow are missed, quoted fields of several lines are not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from common.data.reader import read
from common.data.schema import Columns, DataConfig
from common.errors import UserError

NAMES = ["neg", "pos"]
STRAY = r"row {row} \(line {line}\): a quoted field spans lines that are rows of their own"


def written(folder: Path, lines: list[str], name: str = "n.tsv", **changes: object) -> DataConfig:
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    config = DataConfig(source="csv", path=str(path), labels=NAMES, delimiter="tab")
    return replace(config, **changes)  # type: ignore[arg-type]


def rows(count: int) -> list[str]:
    return [f"text {i}\t{NAMES[i % 2]}\tsouth" for i in range(count)]


FAR = ["text\tlabel\tsite", *rows(50), '"great, she said\tpos\tnorth', *rows(100)]
FAR += ['loved it" again\tneg\tnorth', *rows(50)]
# The second quote stands before a delimiter, as the end of a quoted field does.
FAR_ENDED = [line.replace('loved it" again', 'loved it"') for line in FAR]


@pytest.mark.parametrize("labels", [NAMES, []])
def test_rows_between_two_stray_quotes_are_not_swallowed(tmp_path: Path, labels: list[str]) -> None:
    config = written(tmp_path, FAR_ENDED, labels=labels)
    with pytest.raises(UserError, match=STRAY.format(row=51, line=52)):
        read(config, discover=True)
    table = read(replace(config, quoted=False), discover=True)
    assert len(table) == 202
    assert table.texts[50] == '"great, she said'


@pytest.mark.parametrize(
    "lines",
    [
        ["text\tlabel", '"a great film\tpos', 'what a mess"\tneg', "fine\tpos", "dull\tneg"],
        ["label\ttext", 'pos\t"a great film', 'neg\twhat a mess"', "pos\tfine", "neg\tdull"],
    ],
)
def test_two_neighbours_are_not_joined(tmp_path: Path, lines: list[str]) -> None:
    config = written(tmp_path, lines)
    with pytest.raises(UserError, match=STRAY.format(row=1, line=2)):
        read(config)
    with pytest.raises(UserError, match=STRAY.format(row=1, line=2)):
        read(replace(config, labels=[]), discover=True)
    assert len(read(replace(config, quoted=False))) == 4


def test_numbers_that_are_swallowed_are_missed(tmp_path: Path) -> None:
    lines = ["text,score", '"good,1.5', "bad,0.5", 'end",1', "x,1"]
    config = written(
        tmp_path,
        lines,
        name="n.csv",
        delimiter=",",
        labels=[],
        target="number",
        bounds=[0.0, 5.0],
        columns=Columns(label="score"),
    )
    with pytest.raises(UserError, match="spans lines that are rows of their own"):
        read(config)


def test_fields_of_several_lines_are_read(tmp_path: Path) -> None:
    text = "first, second\nthird, fourth, fifth\n\nlast, positive"
    other = "a,b\nc,d"
    content = f'text,label\n"{text}",neg\n"{other}",pos\n'
    config = written(tmp_path, content.splitlines(), name="n.csv", delimiter=",")
    assert list(read(config).texts) == [text, other]
    assert list(read(replace(config, labels=[]), discover=True).texts) == [text, other]
    swapped = f'label,text\nneg,"{text}"\npos,"{other}"\n'
    config = written(tmp_path, swapped.splitlines(), name="n.csv", delimiter=",")
    assert list(read(config).texts) == [text, other]


@pytest.mark.parametrize("delimiter", ["\t", "tab", "\\t", ","])
def test_tabs_have_names_and_the_files_suffix_says_them(tmp_path: Path, delimiter: str) -> None:
    config = written(tmp_path, ["text\tlabel\tsite", *rows(4)], delimiter=delimiter)
    assert len(read(config)) == 4


def test_a_line_that_names_the_delimiter_is_followed(tmp_path: Path) -> None:
    lines = ["sep=;", "text;label", "a, b;pos", "c;neg", ";pos"]
    config = written(tmp_path, lines, name="n.csv", delimiter=",")
    with pytest.raises(UserError, match=r"row 3 \(line 5\), column 'text': the text is empty"):
        read(config)
