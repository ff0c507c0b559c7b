"""JSON in the forms that tools write: lists, objects over several lines, inner objects."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.data.reader import read
from common.data.schema import Columns, DataConfig
from common.errors import UserError

ROWS = [{"text": f"text {i} ü", "label": ["neg", "pos"][i % 2]} for i in range(4)]
FORMS = {
    "lines": "\n".join(map(json.dumps, ROWS)),
    "a list": json.dumps(ROWS),
    "a list, one object per line": "[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]\n",
    "an indented list": json.dumps(ROWS, indent=1),
    "a list in an object": json.dumps({"count": 4, "data": ROWS}),
    "indented objects": "\n".join(json.dumps(row, indent=2) for row in ROWS),
}


def settings(folder: Path, content: bytes, **changes: object) -> DataConfig:
    path = folder / "n.json"
    path.write_bytes(content)
    fields = {"source": "json", "path": str(path), "labels": ["neg", "pos"], **changes}
    return DataConfig(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("content", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_every_form_reads_the_same(tmp_path: Path, content: str, encoding: str) -> None:
    named = "utf-16" if encoding == "utf-16" else "utf-8"
    table = read(settings(tmp_path, content.encode(encoding), encoding=named))
    assert list(table.texts) == [row["text"] for row in ROWS]
    assert table.labels.tolist() == [0, 1, 0, 1]


def test_faults_of_lists_have_their_place(tmp_path: Path) -> None:
    broken = json.dumps(ROWS, indent=1)[:-20]
    with pytest.raises(UserError, match=r"n\.json: row 1 \(line \d+\): broken JSON"):
        read(settings(tmp_path, broken.encode()))
    with pytest.raises(UserError, match=r"n\.json: row 2: not a JSON object"):
        read(settings(tmp_path, json.dumps([ROWS[0], 5]).encode()))
    empty = json.dumps([ROWS[0], {"text": " ", "label": "neg"}])
    with pytest.raises(UserError, match=r"row 2 \(line 1\), column 'text': the text is empty"):
        read(settings(tmp_path, empty.encode()))


def test_inner_objects_have_names_with_dots(tmp_path: Path) -> None:
    rows = [{"doc": {"text": "x"}, "meta": {"label": "neg"}}, {"doc": {"text": "y"}, "meta": {}}]
    columns = Columns(text="doc.text", label="meta.label")
    content = json.dumps(rows).encode()
    with pytest.raises(UserError, match=r"row 2 .*, column 'meta\.label': the label is missing"):
        read(settings(tmp_path, content, columns=columns))
    table = read(settings(tmp_path, json.dumps(rows[:1]).encode(), columns=columns))
    assert list(table.texts) == ["x"]
    with pytest.raises(UserError, match=r"no column 'doc\.note' \(columns: doc, meta"):
        read(settings(tmp_path, content, columns=Columns(text="doc.note", label="meta.label")))


def test_half_of_an_emoji_is_named(tmp_path: Path) -> None:
    content = b'{"text": "bad \\ud83d here", "label": "pos"}'
    with pytest.raises(UserError, match="column 'text': half of a surrogate pair"):
        read(settings(tmp_path, content))
