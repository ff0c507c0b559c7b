"""Tagged words: CoNLL files and tables, schemes, and what is wrong with a file in one line."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from seqeval.metrics.sequence_labeling import get_entities

from common.data.cache import cached_table
from common.data.reader import read
from common.data.schema import Columns, DataConfig
from common.data.split import hold_out
from common.data.table import WORD_BREAK
from common.errors import UserError
from common.tags import spans, tag_names, to_bio

TYPES = ["LOC", "PER"]


def settings(path: Path, **changes: object) -> DataConfig:
    fields = {"source": "conll", "scheme": "bio", "labels": TYPES, **changes}
    return DataConfig(path=str(path), **fields)  # type: ignore[arg-type]


def written(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "ward.conll"
    path.write_bytes(content)
    return path


GOOD = b"-DOCSTART-\tO\n\nAnna\tB-PER\nSmith\tI-PER\nin\tO\nRome\tB-LOC\n\nRome\tB-LOC\n"


@pytest.mark.parametrize(
    ("content", "scheme"),
    [
        (GOOD, "bio"),
        (GOOD.replace(b"\n", b"\r\n"), "bio"),
        (b"\xef\xbb\xbf" + GOOD, "bio"),
        (GOOD.replace(b"\t", b" "), "bio"),
        (GOOD.replace(b"\t", b"\tNN\t_\t"), "bio"),
        (GOOD.replace(b"B-", b"I-"), "iob1"),
        (GOOD.replace(b"B-", b"I-"), "io"),
        (GOOD.rstrip(b"\n"), "bio"),
    ],
    ids=["tab", "crlf", "mark", "space", "columns", "iob1", "io", "no-last-line-end"],
)
def test_every_way_of_writing_reads_the_same(tmp_path: Path, content: bytes, scheme: str) -> None:
    table = read(settings(written(tmp_path, content), scheme=scheme))
    assert [text.split(WORD_BREAK) for text in table.texts] == [
        ["Anna", "Smith", "in", "Rome"],
        ["Rome"],
    ]
    assert table.tags is not None
    assert [table.tags.of(i).tolist() for i in range(2)] == [[3, 4, 0, 1], [1]]
    assert table.labels.tolist() == [2, 1]


def test_a_document_is_one_record_and_its_sentences_do_not_join(tmp_path: Path) -> None:
    content = b"-DOCSTART- O\n\nAnna I-PER\n\nBea I-PER\n-DOCSTART- O\n\nRome I-LOC\n"
    table = read(settings(written(tmp_path, content), scheme="io", unit="document"))
    assert table.tags is not None
    assert [table.tags.of(i).tolist() for i in range(len(table))] == [[3, 3], [1]]
    assert [table.place(i).rpartition(": ")[2] for i in range(2)] == ["row 1", "row 2"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\tO\nb\tX-PER\n", r"row 1 \(line 2\), column 'label': the tag is not O, B-TYPE"),
        (b"a\tO\n\nb\tI-PER\n", r"row 2 \(line 3\), column 'label': an I- tag without a B-"),
        (b"a\tB-PER\nb\tI-LOC\n", r"row 1 \(line 2\), column 'label': an I- tag without"),
        (b"a\tx\tO\nb\tO\n", r"row 1 \(line 2\): 2 columns instead of 3"),
        (b"a\n", r"row 1 \(line 1\): 1 columns instead of a word and a tag"),
        (b"a\tO\n\ncaf\xe9\tO\n", r"ward.conll: line 3: bytes that are not in data.encoding"),
        (b"a\tB-ORG\n", r"row 1 \(line 1\), column 'label': the entity type is not one of"),
        (b"a\tO\rb\tO\r", r"row 1 \(line 1\): a line break of CR alone: save it with LF or CRLF"),
        (b"a\tO\r\n\r\nb\tI-PER\r\n", r"row 2 \(line 3\), column 'label': an I- tag"),
        (b"", r"ward.conll is empty"),
        (b"\n\n", r"ward.conll has no data rows"),
    ],
)
def test_a_fault_is_one_line_with_its_place(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read(settings(written(tmp_path, content)))
    text = str(caught.value)
    assert "\n" not in text
    assert "caf" not in text


def test_latin_1_is_read_where_the_config_says_so(tmp_path: Path) -> None:
    table = read(settings(written(tmp_path, b"caf\xe9\tO\n"), encoding="latin-1"))
    assert list(table.texts) == ["café"]


def test_types_are_found_in_order_and_the_cache_keeps_tags(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    config = settings(path, labels=[], columns=Columns(groups=["file"]))
    first, second = (cached_table(config, tmp_path / "c", discover=True) for _ in range(2))
    assert first.label_names == second.label_names == ("LOC", "PER")
    assert second.groups["file"].tolist() == ["ward", "ward"]
    assert first.tags is not None
    assert second.tags is not None
    np.testing.assert_array_equal(first.tags.codes, second.tags.codes)
    last = second.select([1])
    assert last.tags is not None
    assert last.tags.of(0).tolist() == [1]


def test_tables_hold_lists_of_words_and_tags(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    columns = Columns(text="tokens", label="tags")
    path.write_text(json.dumps({"tokens": ["Anna", "in", "Rome"], "tags": ["I-PER", "O", "I-LOC"]}))
    config = settings(path, source="json", scheme="io", columns=columns)
    table = read(config)
    assert table.tags is not None
    assert table.tags.codes.tolist() == [3, 0, 1]
    path.write_text(json.dumps({"tokens": ["Anna", "in"], "tags": ["O"]}))
    with pytest.raises(UserError, match=r"row 1 \(line 1\), column 'tags': 1 tags for 2 words"):
        read(config)


@pytest.mark.parametrize("source", ["parquet", "hub"])
def test_class_numbers_of_tags_become_their_names(tmp_path: Path, source: str) -> None:
    names = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    features = Features(
        {"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=names))}
    )
    rows = {"tokens": [["Anna", "Smith", "in", "Rome"]], "ner_tags": [[1, 2, 0, 3]]}
    path = tmp_path / "notes" / "train.parquet"
    path.parent.mkdir()
    Dataset.from_dict(rows, features=features).to_parquet(path)
    columns = Columns(text="tokens", label="ner_tags")
    place = path if source == "parquet" else path.parent
    table = read(settings(place, source=source, columns=columns), downloads=tmp_path / "hub")
    assert table.tags is not None
    assert [tag_names(TYPES)[code] for code in table.tags.codes] == [names[i] for i in (1, 2, 0, 3)]


def test_spans_are_those_of_seqeval() -> None:
    generator = random.Random(0)
    for _ in range(300):
        tags = generator.choices(tag_names(TYPES), k=generator.randint(1, 12))
        ours = [(kind, begin, end - 1) for kind, begin, end in spans(tags)]
        assert ours == get_entities(tags)


def test_iob1_needs_its_b_only_between_neighbours() -> None:
    assert to_bio(["I-PER", "B-PER", "I-PER"], "iob1") == [
        ("B", "PER"),
        ("B", "PER"),
        ("I", "PER"),
    ]


def test_one_file_of_a_folder_can_be_held_out(tmp_path: Path) -> None:
    for name in ("train", "test"):
        (tmp_path / f"{name}.conll").write_text(f"{name} O\n\nRome B-LOC\n")
    config = settings(tmp_path, columns=Columns(groups=["file"]), test_where={"file": "test"})
    table = read(config)
    kept, held_out = hold_out(table, config)
    assert [table.texts[int(i)] for i in held_out] == ["test", "Rome"]
    assert [table.texts[int(i)] for i in kept] == ["train"]  # no sentence is on both sides
    with pytest.raises(UserError, match=r"data\.test_where: no row has these values"):
        hold_out(table, settings(tmp_path, test_where={"file": "dev"}))
    with pytest.raises(UserError, match=r"is not one of data\.columns\.groups"):
        read(settings(tmp_path, test_where={"file": "test"}))
