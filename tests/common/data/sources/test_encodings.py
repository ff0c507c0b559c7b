"""Files whose bytes contradict ``data.encoding``, and texts that show nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.data.reader import read
from common.data.schema import DataConfig
from common.errors import UserError

CONTENT = "text,label\nMüller fand es gut,schön\nx,übel\n"


def written(folder: Path, content: bytes, encoding: str) -> DataConfig:
    path = folder / "n.csv"
    path.write_bytes(content)
    return DataConfig(source="csv", path=str(path), labels=["schön", "übel"], encoding=encoding)


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "iso8859-15", "mac-roman"])
def test_utf8_is_not_read_as_something_else(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(UserError, match=rf"is UTF-8 and not {encoding}: set data\.encoding=utf-8$"):
        read(written(tmp_path, CONTENT.encode(), encoding))
    assert len(read(written(tmp_path, CONTENT.encode(encoding), encoding))) == 2


@pytest.mark.parametrize("source", ["csv", "json"])
def test_utf16_is_named(tmp_path: Path, source: str) -> None:
    config = written(tmp_path, CONTENT.encode("utf-16"), "utf-8")
    config.source = source
    with pytest.raises(UserError, match=r"the mark of UTF-16: set data\.encoding=utf-16$"):
        read(config)


def test_windows_is_not_read_as_latin_1(tmp_path: Path) -> None:
    content = CONTENT.replace("gut", "gut \u2013 \u201esehr\u201c").encode("cp1252")
    with pytest.raises(UserError, match=r"no text in latin-1: try data\.encoding=cp1252$"):
        read(written(tmp_path, content, "latin-1"))
    assert len(read(written(tmp_path, content, "cp1252"))) == 2


def test_bytes_of_windows_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"row 1 \(line 2\), .*: try data\.encoding=cp1252"):
        read(written(tmp_path, CONTENT.encode("cp1252"), "utf-8"))


def test_a_workbook_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a workbook or another archive: save the sheet as CSV"):
        read(written(tmp_path, b"PK\x03\x04 and more", "utf-8"))


HIDDEN = ["\u200b", "\ufeff", "\u00ad", "\u2060", "\U000e0001", "\u0001", "\u00a0"]


@pytest.mark.parametrize("text", HIDDEN)
def test_a_text_that_shows_nothing_is_empty(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"row 2 \(line 3\), column 'text': the text is empty"):
        read(written(tmp_path, f"text,label\nx,schön\n{text},übel\n".encode(), "utf-8"))
