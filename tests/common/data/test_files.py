"""CSV, JSON lines and Parquet: what is read, and what each fault says."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.data.normal import visible
from common.data.reader import read
from common.data.schema import Columns, DataConfig
from common.errors import UserError

SECRET = "Geheimnis"
GOOD = 'text,label,site\n"one, ""two""",neg,a\n"three\nfour",pos,b\nfünf,neg,a\n'
CONFIG = DataConfig(source="csv", labels=["neg", "pos"], columns=Columns(groups=["site"]))


@pytest.fixture
def write(tmp_path):
    def write_file(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file


def config_for(path, **changes):
    return replace(CONFIG, **{"path": str(path), **changes})


def fails(config):
    """The message of the UserError that reading raises; it never holds a private value."""
    with pytest.raises(UserError) as caught:
        read(config)
    message = str(caught.value)
    assert SECRET not in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "content",
    [
        GOOD.encode(),
        b"\xef\xbb\xbf" + GOOD.encode(),
        GOOD.replace("four", "FOUR").replace("\n", "\r\n").replace("FOUR", "four").encode(),
        GOOD.replace("a\n", "a\n\n").encode(),  # blank lines are no rows
        GOOD.rstrip("\n").encode(),
    ],
    ids=["plain", "byte order mark", "crlf", "blank lines", "no last line break"],
)
def test_csv(write, content):
    path = write("notes.csv", content)
    table = read(config_for(path))
    texts = [text.replace("\r\n", "\n") for text in table.texts]
    assert texts == ['one, "two"', "three\nfour", "fünf"]
    assert table.labels.tolist() == [0, 1, 0]
    assert table.label_names == ("neg", "pos")
    assert table.groups["site"].tolist() == ["a", "b", "a"]
    assert [table.place(i) for i in range(3)] == [f"{path}: row {i}" for i in (1, 2, 3)]
    assert table.split is None


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "cp1252"])
def test_csv_in_other_encodings(write, encoding):
    path = write("notes.csv", GOOD.encode(encoding))
    assert read(config_for(path, encoding=encoding)).texts[2] == "fünf"


def test_csv_with_other_names_and_delimiter(write):
    path = write("n.csv", "id; befund ;klasse\n1;kein Befund, nichts;neg\n2;NA;pos\n")
    columns = Columns(text="befund", label="klasse")
    table = read(config_for(path, columns=columns, delimiter=";"))
    assert list(table.texts) == ["kein Befund, nichts", "NA"]
    assert table.labels.tolist() == [0, 1]
    assert table.groups == {}


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(
            lambda text: visible(text).strip()
        ),
        min_size=1,
        max_size=5,
    )
)
def test_any_text_comes_back_from_csv_as_it_was_written(tmp_path, texts):
    path = tmp_path / "any.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows((text, "pos") for text in texts)
    assert list(read(config_for(path, columns=Columns())).texts) == texts


def test_a_glob_reads_its_files_in_order_of_name(write, tmp_path):
    second, first = write("b.csv", GOOD), write("a.csv", "text,label,site\nx,neg,c\n")
    table = read(config_for(tmp_path / "*.csv"))
    assert table.place(0) == f"{first}: row 1"
    assert table.place(1) == f"{second}: row 1"
    assert len(table) == 4


def test_a_number_is_never_the_place_of_a_name(write):
    path = write("n.csv", "text,label,site\nx,1,a\ny,0,a\n")
    assert fails(config_for(path)) == (
        f"{path}: row 1 (line 2), column 'label': the label is a number, but data.labels has "
        "names: say what every code stands for in data.label_codes, as in +data.label_codes.0=pos"
    )
    codes = config_for(path, label_codes={"0": "pos", "1": "neg"})
    assert read(codes).labels.tolist() == [0, 1]
    assert read(config_for(path, labels=["1", "0"])).labels.tolist() == [0, 1]
    assert "row 2 (line 3)" in fails(config_for(path, labels=["1", "2"]))


def test_labels_are_found_only_on_request_and_in_a_fixed_order(write):
    path = write("n.csv", "text,label,site\nx,10,a\ny,9,a\nz,10,a\n")
    config = config_for(path, labels=[])
    assert fails(config).startswith("data.labels is empty")
    table = read(config, discover=True)
    assert table.label_names == ("9", "10")
    assert table.labels.tolist() == [1, 0, 1]
    path.write_text("text,label,site\nx,b,a\ny,a,a\n")
    assert read(config, discover=True).label_names == ("a", "b")


def test_more_labels_than_anybody_has(write):
    rows = "".join(f"x,{SECRET}{i},a\n" for i in range(1001))
    path = write("n.csv", "text,label,site\n" + rows)
    with pytest.raises(UserError, match=r"row 1001 .*'label': more than 1000 different") as caught:
        read(config_for(path, labels=[]), discover=True)
    assert SECRET not in str(caught.value)


def test_split_column(write):
    content = "text,label,site,fold\na,neg,s,train\nb,neg,s,Dev\nc,pos,s,test\n"
    path = write("n.csv", content)
    columns = Columns(groups=["site"], split="fold")
    assert read(config_for(path, columns=columns)).split.tolist() == ["train", "validation", "test"]
    path.write_text(f"text,label,site,fold\na,neg,s,train\nb,neg,s,{SECRET}\n")
    assert fails(config_for(path, columns=columns)) == (
        f"{path}: row 2 (line 3), column 'fold': must be train, validation or test"
    )


HEAD = "text,label,site\n"
OK = "fine,pos,a\n"
FAULTS = {
    "empty text": (HEAD + OK + '"  ",neg,a\n', "row 2 (line 3), column 'text': the text is empty"),
    "no text": (HEAD + ",neg,a\n", "row 1 (line 2), column 'text': the text is empty"),
    "unknown label": (
        HEAD + OK + f'"two\nlines",neg,a\nx,{SECRET},a\n',
        "row 3 (line 5), column 'label': the label is not one of the 2 in data.labels",
    ),
    "unknown label in a row of three lines": (
        HEAD + OK + f'"{SECRET}\n\nmore",perhaps,a\n',
        "row 2 (line 3), column 'label': the label is not one of the 2 in data.labels",
    ),
    "no label": (HEAD + f"{SECRET},,a\n", "row 1 (line 2), column 'label': the label is missing"),
    "short row": (HEAD + OK + f"{SECRET},neg\n", "row 2 (line 3): 2 fields instead of 3"),
    "long row": (HEAD + f"{SECRET},neg,a,{SECRET}\n", "row 1 (line 2): 4 fields instead of 3"),
    "stray quote": (
        HEAD + OK + f'"{SECRET}" x,neg,a\n',
        "row 2 (line 3): malformed CSV: text after the closing quote of a field: set "
        "data.quoted=false if quotes are part of the texts",
    ),
    "open quote": (
        HEAD + OK + f'"{SECRET},neg,a\nx,neg,a\n',
        "row 2 (line 3): malformed CSV: a quote is never closed: set data.quoted=false if quotes "
        "are part of the texts",
    ),
    "header only": (HEAD, None),
    "bad bytes": (
        HEAD.encode() + OK.encode() + SECRET.encode() + b"\xff,neg,a\n",
        "row 2 (line 3), column 'text': bytes that are not in data.encoding: try "
        "data.encoding=cp1252 (Windows)",
    ),
    "bad bytes in a group": (
        HEAD.encode() + SECRET.encode() + b",neg,\xe4\n",
        "row 1 (line 2), column 'site': bytes that are not in data.encoding: try "
        "data.encoding=cp1252 (Windows)",
    ),
}


@pytest.mark.parametrize(("content", "problem"), FAULTS.values(), ids=FAULTS)
def test_csv_faults_name_file_row_and_column(write, content, problem):
    path = write("notes.csv", content)
    expected = f"{path} has no data rows" if problem is None else f"{path}: {problem}"
    assert fails(config_for(path)) == expected


def test_a_fault_far_down_keeps_its_row(write):
    rows = [f"text {i},pos,a\n" for i in range(20_000)]
    rows[17_654] = f"{SECRET},maybe,a\n"
    path = write("n.csv", HEAD + "".join(rows))
    assert "row 17655 (line 17656), column 'label'" in fails(config_for(path))


def test_bad_bytes_in_a_column_that_is_not_read_do_not_matter(write):
    path = write("n.csv", b"text,label,other\nx,neg,\xff\n")
    assert len(read(config_for(path, columns=Columns()))) == 1


def test_bytes_that_a_wide_encoding_cannot_hold(write):
    path = write("n.csv", HEAD.encode("utf-16-le") + b"x")
    message = fails(config_for(path, encoding="utf-16-le"))
    assert message == f"{path}: after row 0: bytes that are not in data.encoding (utf-16-le)"


def test_missing_column_lists_those_that_are_there(write):
    path = write("n.csv", f"note,label,{'z' * 41}\n{SECRET},neg,a\n")
    assert fails(config_for(path)) == (
        f"{path}: no column 'text' (columns: note, label, (a long name)): set data.columns"
    )
    path.write_text(f"text;label;site\n{SECRET};neg;a\n")
    assert fails(config_for(path)).endswith(": set data.columns or data.delimiter")
    path.write_text(f"text,label,text,site\n{SECRET},neg,x,a\n")
    assert fails(config_for(path)) == f"{path}: column 'text' appears 2 times"


def test_files_that_are_not_there(tmp_path, write):
    empty = write("empty.csv", "")
    assert fails(config_for(empty)) == f"{empty} is empty"
    blank = write("blank.csv", "\n\n")
    assert fails(config_for(blank)) == f"{blank} is empty"
    nothing = tmp_path / "*.txt"
    assert fails(config_for(nothing)) == f"no file matches data.path: {nothing}"
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "README.md").write_text("not data")
    assert fails(config_for(folder)) == (
        f"{folder} is a folder without files called .csv, .tsv: set data.path to a file or a glob "
        f"such as {folder}/*"
    )
    assert fails(replace(CONFIG, path=None)).startswith("data.path is not set")
    assert fails(config_for(empty, encoding="utf-5")) == f"{empty} is empty"
    good = write("good.csv", GOOD)
    assert fails(config_for(good, encoding="utf-5")).startswith("data.encoding is not the name")


def test_a_folder_stands_for_its_files_of_the_source(tmp_path, write):
    write("b.csv", GOOD)
    write("a.CSV", GOOD)
    write("README.md", "not data")
    table = read(config_for(tmp_path))
    assert [Path(file).name for file in table.files] == ["a.CSV", "b.csv"]


JSON = replace(CONFIG, source="json")


def test_json_lines(write):
    records = [
        {"text": "one\ntwo", "label": "pos", "site": "a", "more": [1]},
        {"text": "fünf", "label": "neg"},
    ]
    lines = "\n\n".join(json.dumps(record) for record in records)
    path = write("n.jsonl", b"\xef\xbb\xbf" + lines.encode())
    table = read(replace(JSON, path=str(path)))
    assert list(table.texts) == ["one\ntwo", "fünf"]
    assert table.labels.tolist() == [1, 0]
    assert table.groups["site"].tolist() == ["a", ""]
    assert table.place(1) == f"{path}: row 2"


GOOD_LINE = '{"text": "x", "label": "neg", "site": "a"}\n'
JSON_FAULTS = {
    "broken": (f'{{"text": "{SECRET}"\n', "row 2 (line 3): broken JSON"),
    "a list": (f'["{SECRET}"]\n', "row 2 (line 3): not a JSON object"),
    "null text": (
        '{"text": null, "label": "neg"}\n',
        "row 2 (line 3), column 'text': the text is mis",
    ),
    "number for text": ('{"text": 5, "label": "neg"}\n', "column 'text': the value is not text"),
    "blank text": ('{"text": " ", "label": "neg"}\n', "column 'text': the text is empty"),
    "half a pair": (
        '{"text": "\\ud800", "label": "neg"}\n',
        "column 'text': half of a surrogate pair",
    ),
    "no label": (f'{{"text": "{SECRET}"}}\n', "row 2 (line 3), column 'label': the label is mis"),
    "label NaN": ('{"text": "x", "label": NaN}\n', "column 'label': the label is missing"),
    "label list": (
        f'{{"text": "x", "label": ["{SECRET}"]}}\n',
        "row 2 (line 3), column 'label': the value is a list: write one value, or set",
    ),
    "unknown label": (f'{{"text": "x", "label": "{SECRET}"}}\n', "the label is not one of the 2"),
}


@pytest.mark.parametrize(("line", "problem"), JSON_FAULTS.values(), ids=JSON_FAULTS)
def test_json_faults(write, line, problem):
    path = write("n.jsonl", GOOD_LINE + "\n" + line)
    message = fails(replace(JSON, path=str(path)))
    assert message.startswith(f"{path}: row 2 (line 3)")
    assert problem in message


def test_json_bytes_and_columns(write):
    path = write("n.jsonl", GOOD_LINE.encode() + b'{"text": "\xff"}\n')
    assert fails(replace(JSON, path=str(path))) == (
        f"{path}: row 2 (line 2): bytes that are not in data.encoding, at byte "
        f"{len(GOOD_LINE) + 10}"
    )
    path.write_text(f'{{"note": "{SECRET}", "label": "neg"}}\n')
    assert "no column 'text' (columns: note, label)" in fails(replace(JSON, path=str(path)))
    path.write_text('{"text": "x", "label": "neg"}\n')
    assert "no column 'site' (columns: text, label)" in fails(replace(JSON, path=str(path)))
    path.write_text("\n\n")
    assert fails(replace(JSON, path=str(path))) == f"{path} has no data rows"


PARQUET = replace(CONFIG, source="parquet")


def write_parquet(path, **columns):
    pq.write_table(pa.table(columns), path)
    return replace(PARQUET, path=str(path))


def test_parquet(tmp_path):
    config = write_parquet(
        tmp_path / "n.parquet",
        site=pa.array(["a", None], pa.string()).dictionary_encode(),
        text=["one", "zwei ü"],
        label=[1.0, 0.0],
        more=[[1], [2]],
    )
    assert "row 1, column 'label': the label is a number" in fails(config)
    table = read(replace(config, label_codes={"0": "neg", "1": "pos"}))
    assert list(table.texts) == ["one", "zwei ü"]
    assert table.labels.tolist() == [1, 0]
    assert table.groups["site"].tolist() == ["a", ""]


def test_parquet_with_class_names_of_datasets(tmp_path):
    import datasets

    features = datasets.Features(
        text=datasets.Value("string"), label=datasets.ClassLabel(names=["pos", "neg"])
    )
    path = tmp_path / "n.parquet"
    data = datasets.Dataset.from_dict({"text": ["x", "y"], "label": [0, 1]}, features=features)
    data.to_parquet(path)
    config = replace(PARQUET, path=str(path), columns=Columns())
    # The file's own names decide where they are the labels; else the numbers are codes.
    assert read(config).labels.tolist() == [1, 0]
    other = replace(config, labels=["good", "bad"])
    assert "column 'label': the label is a number, but" in fails(other)
    for codes in ({"0": "good", "1": "bad"}, {"pos": "good", "neg": "bad"}):
        assert read(replace(other, label_codes=codes)).labels.tolist() == [0, 1]
    assert read(replace(config, labels=[]), discover=True).label_names == ("neg", "pos")


def test_folders_of_parquet_files_can_name_a_column(tmp_path):
    for site in ("north", "s%C3%BCd"):
        (tmp_path / f"site={site}").mkdir()
        pq.write_table(
            pa.table({"text": ["x"], "label": ["neg"]}), tmp_path / f"site={site}" / "0.parquet"
        )
    table = read(replace(PARQUET, path=f"{tmp_path}/**/*.parquet"))
    assert table.groups["site"].tolist() == ["north", "süd"]


def test_parquet_faults(tmp_path):
    path = tmp_path / "n.parquet"
    config = write_parquet(path, text=["x", None], label=[0, 1], site=["a", "b"])
    assert fails(config) == f"{path}: row 2, column 'text': the text is missing"
    write_parquet(path, text=["x", "y"], label=["neg", SECRET], site=["a", "b"])
    assert fails(config).startswith(f"{path}: row 2, column 'label': the label is not one of")
    write_parquet(path, text=[1, 2], label=["neg", "pos"], site=["a", "b"])
    assert fails(config) == f"{path}: row 1, column 'text': the value is not text"
    write_parquet(path, note=["x"], label=[0], site=["a"])
    assert fails(config).startswith(f"{path}: no column 'text' (columns: note, label, site)")
    write_parquet(path, text=pa.array([], pa.string()), label=[], site=[])
    assert fails(config) == f"{path} has no data rows"
    raw = pa.array([b"x", b"\xff"]).view(pa.string())
    write_parquet(path, text=raw, label=[0, 1], site=["a", "b"])
    assert fails(config) == f"{path}: row 2, column 'text': bytes that are not UTF-8"
    path.write_bytes(path.read_bytes()[:-10])
    assert fails(config) == f"{path} is not a whole Parquet file"
    path.write_text(SECRET)
    assert fails(config) == f"{path} is not a whole Parquet file"


def test_messages_are_single_lines_without_python_types(write):
    path = write("n.csv", HEAD + f"{SECRET},,a\n")
    assert not re.search(r"Error|Traceback|<class", fails(config_for(path)))
