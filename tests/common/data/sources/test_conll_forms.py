"""CoNLL files in the forms that tools write: numbered words, comments, other schemes."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from common.data.reader import read
from common.data.schema import Columns, DataConfig
from common.data.table import WORD_BREAK
from common.errors import UserError
from common.tags import TagError, to_bio

WORDS = ["Anna", "Smith", "in", "Rome"]
TAGS = ["B-PER", "I-PER", "O", "B-LOC"]


def settings(path: Path, **changes: object) -> DataConfig:
    fields = {"source": "conll", "scheme": "bio", "labels": ["LOC", "PER"], **changes}
    return DataConfig(path=str(path), **fields)  # type: ignore[arg-type]


def read_file(folder: Path, content: str, **changes: object) -> list[list[str]]:
    path = folder / "n.conll"
    path.write_text(content)
    table = read(settings(path, **changes))
    assert table.tags is not None
    assert table.tags.of(0).tolist() == [3, 4, 0, 1]
    return [text.split(WORD_BREAK) for text in table.texts]


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("between", ["\t", " "])
def test_a_column_that_numbers_the_words_is_skipped(
    tmp_path: Path, first: int, between: str
) -> None:
    lines = [
        between.join((str(n), word, "_", tag))
        for n, (word, tag) in enumerate(zip(WORDS, TAGS, strict=True), start=first)
    ]
    content = "\n".join([*lines, "", between.join((str(first), "Rome", "_", "B-LOC"))]) + "\n"
    assert read_file(tmp_path, content) == [WORDS, ["Rome"]]


def test_words_that_are_numbers_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "n.conll"
    path.write_text("1 CD O\n2 CD O\n\n7 CD O\n")
    assert [text.split(WORD_BREAK) for text in read(settings(path)).texts] == [["1", "2"], ["7"]]


def test_words_and_tags_of_numbered_columns(tmp_path: Path) -> None:
    rows = zip(TAGS, WORDS, strict=True)
    content = "".join(f"x\t{tag}\t{word}\n" for tag, word in rows)
    columns = Columns(text="3", label="2")
    assert read_file(tmp_path, content, columns=columns) == [WORDS]
    with pytest.raises(UserError, match=r"data\.columns\.text=4, but there are 3 columns"):
        read_file(tmp_path, content, columns=Columns(text="4", label="2"))


def test_comments_before_a_sentence_are_skipped_and_words_that_begin_with_a_mark_are_not(
    tmp_path: Path,
) -> None:
    sentence = "".join(f"{word}\t{tag}\n" for word, tag in zip(WORDS, TAGS, strict=True))
    content = f"# newdoc\n# text = Anna Smith in Rome\n{sentence}\n# sent_id = 2\n#\tO\n#tag\tO\n"
    assert read_file(tmp_path, content) == [WORDS, ["#", "#tag"]]


@pytest.mark.parametrize(
    ("scheme", "tags"),
    [
        ("bioes", ["B-PER", "E-PER", "O", "S-LOC"]),
        ("bilou", ["B-PER", "L-PER", "O", "U-LOC"]),
    ],
)
def test_schemes_that_mark_the_end(tmp_path: Path, scheme: str, tags: list[str]) -> None:
    content = "".join(f"{word} {tag}\n" for word, tag in zip(WORDS, tags, strict=True))
    assert read_file(tmp_path, content, scheme=scheme) == [WORDS]
    with pytest.raises(UserError, match=rf"line 2\).*: try data\.scheme={scheme}"):
        read_file(tmp_path, content, scheme="bio")


@pytest.mark.parametrize(
    ("tags", "position"),
    [
        (["B-X", "O"], 1),
        (["B-X"], 0),
        (["I-X", "E-X"], 0),
        (["S-X", "E-X"], 1),
        (["B-X", "E-Y"], 1),
        (["B-X", "S-X"], 1),
    ],
)
def test_an_entity_without_begin_or_end_is_refused(tags: list[str], position: int) -> None:
    with pytest.raises(TagError) as caught:
        to_bio(tags, "bioes")
    assert caught.value.position == position


def test_tags_without_a_type_have_the_only_one(tmp_path: Path) -> None:
    path = tmp_path / "n.conll"
    path.write_text("Anna B\nSmith I\nhere O\n")
    table = read(settings(path, labels=["PER"]))
    assert table.tags is not None
    assert table.tags.of(0).tolist() == [1, 2, 0]
    with pytest.raises(UserError, match=r"it has no type; name the one type in data\.labels"):
        read(settings(path))


@pytest.mark.parametrize(
    ("tag", "hint"),
    [
        ("0", "it is the digit 0, write the letter O"),
        ("b-PER", "write its first letter in capitals"),
        ("o", "write its first letter in capitals"),
        ("B_PER", "write - between letter and type"),
    ],
)
def test_a_tag_that_is_nearly_one_says_what_to_write(tmp_path: Path, tag: str, hint: str) -> None:
    path = tmp_path / "n.conll"
    path.write_text(f"Anna O\nSmith {tag}\n")
    with pytest.raises(UserError, match=rf"row 1 \(line 2\), column 'label': .*: {hint}"):
        read(settings(path))


def test_compressed_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "n.conll.gz"
    path.write_bytes(gzip.compress(b"Anna B-PER\nRome O\n"))
    assert list(read(settings(path)).texts) == [f"Anna{WORD_BREAK}Rome"]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"n\.conll\.gz is not a whole gzip file"):
        read(settings(path))
