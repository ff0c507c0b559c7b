"""JSON lines: one object per line."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from common.data.batch import BATCH_ROWS, Batch, require_columns
from common.data.schema import Columns, DataConfig
from common.data.sources.files import FileSource, open_bytes
from common.errors import UserError


class Json(FileSource):
    """Files of JSON lines."""

    name = "json"
    suffixes = (".jsonl", ".json", ".ndjson")
    tagged = True

    def read_file(self, path: Path, config: DataConfig) -> Iterator[Batch]:
        """The mapped columns of one file, in batches."""
        return _read_json_lines(path, config.columns, config.encoding)


def _read_json_lines(path: Path, columns: Columns, encoding: str) -> Iterator[Batch]:
    """One JSON object a line; a group column may be absent from some rows, not from all."""
    wanted = columns.all()
    required = [name for name in wanted if name not in columns.groups]
    seen: dict[str, None] = {}
    records: list[dict[str, Any]] = []
    lines: list[int] = []
    row = offset = 0
    with open_bytes(path) as file:
        for line, raw in enumerate(file, start=1):
            if raw.strip() and raw != codecs.BOM_UTF8:
                row += 1
                place = f"{path}: row {row} (line {line})"
                record = _parse_line(raw, encoding, place, offset)
                if row == 1:
                    require_columns(str(path), required, list(record))
                seen |= dict.fromkeys(record)
                records.append(record)
                lines.append(line)
            offset += len(raw)
            if len(records) == BATCH_ROWS:
                yield _json_batch(path, row, wanted, records, lines)
                records, lines = [], []
    if row:
        require_columns(str(path), wanted, list(seen))
    if records:
        yield _json_batch(path, row, wanted, records, lines)


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
        name: [record.get(name) for record in records] for name in wanted
    }
    return Batch(str(path), last_row - len(records) + 1, columns, lines)
