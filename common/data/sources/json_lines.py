"""JSON: one object per line, or a list of objects, or objects one after another."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from common.data.batch import BATCH_ROWS, Batch, require_columns
from common.data.schema import Columns, DataConfig
from common.data.sources.files import FileSource, open_bytes, open_text
from common.errors import UserError

# The row, its line where it has one, and what it holds.
Record = tuple[int, int, dict[str, Any]]


class Json(FileSource):
    """Files of JSON."""

    name = "json"
    suffixes = (".jsonl", ".json", ".ndjson")
    tagged = True

    def read_file(self, path: Path, config: DataConfig) -> Iterator[Batch]:
        """The mapped columns of one file, in batches."""
        columns = config.columns
        if _is_lines(path, config):
            return _batches(path, columns, _lines(path, config.encoding))
        return _batches(path, columns, _objects(path, config.encoding))


def _batches(path: Path, columns: Columns, found: Iterator[Record]) -> Iterator[Batch]:
    """Records in batches; a group column may be absent from some rows, not from all."""
    wanted = columns.all()
    required = [name for name in wanted if name not in columns.groups]
    seen: dict[str, None] = {}
    records: list[dict[str, Any]] = []
    lines: list[int] = []
    row = 0
    for row, line, record in found:
        if row == 1:
            require_columns(str(path), required, _names(record, wanted))
        seen |= dict.fromkeys(_names(record, wanted))
        records.append(record)
        lines.append(line)
        if len(records) == BATCH_ROWS:
            yield _json_batch(path, row, wanted, records, lines)
            records, lines = [], []
    if row:
        require_columns(str(path), wanted, list(seen))
    if records:
        yield _json_batch(path, row, wanted, records, lines)


def _names(record: dict[str, Any], wanted: Sequence[str]) -> list[str]:
    """The keys of a record, and the wanted ones that lead into inner objects."""
    return [*record, *(name for name in wanted if name not in record and _holds(record, name))]


def _holds(record: dict[str, Any], name: str) -> bool:
    value: Any = record
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            return False
        value = value[part]
    return True


def _field(record: dict[str, Any], name: str) -> object:
    """The value of a key, or of ``outer.inner`` in an object within the object."""
    if name in record or "." not in name:
        return record.get(name)
    value: Any = record
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _is_lines(path: Path, config: DataConfig) -> bool:
    """Whether the first line with anything on it is one whole record."""
    try:
        with open_text(path, config.encoding, errors="surrogateescape") as file:
            first = next((line for line in file if line.strip("\ufeff \t\r\n")), "{}")
        value = json.loads(first.strip("\ufeff"))
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and (_holds(value, config.columns.text) or not _inner(value))


def _inner(value: dict[str, Any]) -> list[Any]:
    """The only list of objects in an object, as in {"data": [...]}; else nothing."""
    lists = [v for v in value.values() if isinstance(v, list) and v and isinstance(v[0], dict)]
    return lists[0] if len(lists) == 1 else []


def _lines(path: Path, encoding: str) -> Iterator[Record]:
    """The record of every line; a blank line is none."""
    row = offset = 0
    wide = codecs.lookup(encoding).name.startswith(("utf-16", "utf-32"))
    with open_bytes(path) as file:
        raws = _encoded(path, encoding) if wide else iter(file)
        for line, raw in enumerate(raws, start=1):
            if raw.strip() and raw != codecs.BOM_UTF8:
                row += 1
                place = f"{path}: row {row} (line {line})"
                yield row, line, _parse_line(raw, "utf-8" if wide else encoding, place, offset)
            offset += len(raw)


def _encoded(path: Path, encoding: str) -> Iterator[bytes]:
    """The lines of a file whose line ends are more than one byte, in UTF-8."""
    with open_text(path, encoding) as file:
        try:
            for line in file:
                yield line.encode()
        except UnicodeError:
            raise UserError(f"{path}: bytes that are not in data.encoding ({encoding})") from None


def _objects(path: Path, encoding: str) -> Iterator[Record]:
    """The records of lists, and of objects that span lines; the line is where each begins."""
    with open_text(path, encoding) as file:
        try:
            text = file.read().removeprefix("\ufeff")
        except UnicodeError:
            raise UserError(f"{path}: bytes that are not in data.encoding ({encoding})") from None
    decoder = json.JSONDecoder()
    row, line, end = 0, 1, 0
    while True:
        start = next((n for n in range(end, len(text)) if not text[n].isspace()), len(text))
        if start >= len(text):
            return
        line += text.count("\n", end, start)
        try:
            value, stop = decoder.raw_decode(text, start)
        except (ValueError, RecursionError) as error:
            where = getattr(error, "lineno", line)
            raise UserError(
                f"{path}: row {row + 1} (line {where}): broken JSON: write one whole object per "
                "line, or one list of objects"
            ) from None
        inner = value if isinstance(value, list) else _inner(value) or [value]
        for record in inner:
            row += 1
            if not isinstance(record, dict):
                raise UserError(f"{path}: row {row}: not a JSON object: one object is a row")
            yield row, line, record
        line += text.count("\n", start, stop)
        end = stop


def _parse_line(raw: bytes, encoding: str, place: str, offset: int) -> dict[str, Any]:
    try:
        record = json.loads(raw.removeprefix(codecs.BOM_UTF8).decode(encoding))
    except UnicodeDecodeError as error:
        problem = f"bytes that are not in data.encoding, at byte {offset + error.start}"
        raise UserError(f"{place}: {problem}") from None
    except (ValueError, RecursionError):
        raise UserError(f"{place}: broken JSON: one whole object is needed on a line") from None
    if not isinstance(record, dict):
        raise UserError(f"{place}: not a JSON object: one object is needed on a line")
    return record


def _json_batch(
    path: Path,
    last_row: int,
    wanted: Sequence[str],
    records: list[dict[str, Any]],
    lines: list[int],
) -> Batch:
    columns: dict[str, list[object]] = {
        name: [_field(record, name) for record in records] for name in wanted
    }
    return Batch(str(path), last_row - len(records) + 1, columns, lines)
