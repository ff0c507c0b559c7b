"""Generated exports: what is read equals what was written, or it is refused with one line.

Dialect, encoding, coding of labels and dirt are drawn; the configuration is right or wrong about
encoding and codes.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from common.data.normal import visible
from common.data.reader import read
from common.data.schema import DataConfig
from common.errors import UserError

NAMES = ["bad", "fine", "great"]
# Codes of several countings: from 0, from 1, turned round, truth values, letters of a system.
CODINGS = [
    {"bad": "bad", "fine": "fine", "great": "great"},
    {"bad": "0", "fine": "1", "great": "2"},
    {"bad": "2", "fine": "1", "great": "0"},
    {"bad": "1", "fine": "2", "great": "3"},
    {"bad": "-1", "fine": "0", "great": "1"},
    {"bad": "Bad", "fine": "FINE ", "great": "great"},
]
DIRT = ["none", "missing", "NA", "header", "mixed", "stray quotes"]
# No two of the letters beyond ASCII are, in cp1252, bytes that UTF-8 could begin and go on with.
LETTERS = st.one_of(
    st.characters(min_codepoint=32, max_codepoint=126), st.sampled_from("\näöüßéñç")
)
TEXTS = st.text(LETTERS, min_size=1, max_size=30).filter(lambda text: visible(text).strip() != "")


@dataclass(frozen=True)
class Export:
    """A file, the settings that it is read with, and what it holds."""

    content: bytes
    config: DataConfig
    texts: list[str]
    labels: list[str]


@st.composite
def exports(draw: st.DrawFn) -> Export:
    rows = draw(st.lists(st.tuples(TEXTS, st.sampled_from(NAMES)), min_size=2, max_size=12))
    coding = draw(st.sampled_from(CODINGS))
    dirt = draw(st.sampled_from(DIRT))
    delimiter = draw(st.sampled_from([",", ";", "\t", "|"]))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "cp1252", "utf-16"]))
    read_as = draw(st.sampled_from([encoding, "utf-8", "cp1252", "latin-1"]))
    texts, names = [text for text, _ in rows], [name for _, name in rows]
    cells = [coding[name] for name in names]
    place = draw(st.integers(0, len(rows) - 1))
    if dirt in ("missing", "NA", "header"):
        cells[place] = {"missing": "", "NA": "NA", "header": "label"}[dirt]
    if dirt == "mixed":
        cells[place] = names[place]
    if dirt == "stray quotes":
        texts = [text.replace('"', "").replace(delimiter, "") or "x" for text in texts]
        texts[0], texts[-1] = '"' + texts[0], texts[-1] + '"'
        lines = [
            delimiter.join(cell) for cell in [("text", "label"), *zip(texts, cells, strict=True)]
        ]
        content = end.join(lines) + end
    else:
        file = io.StringIO()
        writer = csv.writer(file, delimiter=delimiter, lineterminator=end)
        writer.writerows([("text", "label"), *zip(texts, cells, strict=True)])
        content = file.getvalue()
    codes = {code: name for name, code in coding.items()} if draw(st.booleans()) else {}
    codes = codes if coding["bad"] not in ("bad", "Bad") else {}
    config = DataConfig(
        source="csv",
        encoding=read_as.removesuffix("-sig"),
        delimiter=draw(st.sampled_from([delimiter, ","])),
        labels=NAMES,
        label_codes=codes,
        fold_case=draw(st.booleans()),
    )
    return Export(content.encode(encoding), config, texts, names)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(export=exports())
def test_what_is_read_is_what_was_written(tmp_path: Path, export: Export) -> None:
    path = tmp_path / "export.csv"
    path.write_bytes(export.content)
    export.config.path = str(path)
    try:
        table = read(export.config)
    except UserError as error:
        event("refused")
        if "\n" in str(error):
            raise
        return
    event("read")
    assert list(table.texts) == export.texts
    assert [table.label_names[number] for number in table.labels] == export.labels
