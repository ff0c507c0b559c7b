"""CSV, JSON lines and Parquet files, read row by row so that every fault has its place.

pandas, which stands behind the CSV reader of ``datasets``, pads short rows and skips blank lines
silently, and ``datasets`` leaves a second copy of the private text in its cache.  So CSV and JSON
lines are read with the standard library, and Parquet with the Arrow reader, mapped columns only.
"""

from __future__ import annotations

import codecs
import csv
import glob
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from common.data.conll import read_conll
from common.data.records import BATCH_ROWS, Batch, require_columns
from common.data.schema import Columns, DataConfig
from common.errors import UserError

# The module's default of 131,072 characters is less than a court ruling.
csv.field_size_limit(sys.maxsize)


# What files of each source are called, where a folder is given.
SUFFIXES = {
    "csv": (".csv",),
    "json": (".jsonl", ".json"),
    "parquet": (".parquet",),
    "conll": (".conll", ".conll03", ".bio", ".iob", ".tsv"),
}


def find_files(pattern: str, key: str, source: str) -> list[Path]:
    """The files that ``pattern`` names, sorted.

    It is a path, a folder (whose files of the source's suffixes are taken), or a glob with ** for
    any depth.
    """
    path = Path(pattern).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        suffixes = SUFFIXES[source]
        found = sorted(f for f in path.iterdir() if f.suffix.lower() in suffixes and f.is_file())
        if not found:
            known = ", ".join(suffixes)
            problem = f"{path} is a folder without files called {known}"
            raise UserError(f"{problem}: set {key} to a file or a glob such as {path}/*")
        return found
    files = sorted(Path(p) for p in glob.glob(str(path), recursive=True) if Path(p).is_file())
    if not files:
        raise UserError(f"no file matches {key}: {path}")
    return files


def config_files(config: DataConfig, test_path: str | None = None) -> list[Path]:
    """The files of the config's source, or of its test set."""
    if test_path is not None:
        return find_files(test_path, "data.test_path", config.source)
    if not config.path:
        raise UserError(f"data.path is not set: data.source={config.source} needs a file or a glob")
    return find_files(config.path, "data.path", config.source)


def read_file(path: Path, config: DataConfig) -> Iterator[Batch]:
    """The mapped columns of one file of the kind ``config.source``, in batches."""
    count = 0
    try:
        if path.stat().st_size == 0:
            raise UserError(f"{path} is empty")
        for batch in _batches(path, config):
            count += 1
            yield batch
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or 'broken file'}") from None
    if not count:
        raise UserError(f"{path} has no data rows")


def _batches(path: Path, config: DataConfig) -> Iterator[Batch]:
    if config.source == "parquet":
        return _read_parquet(path, config)
    try:
        "a".encode(config.encoding)  # also refuses codecs that are not for text, such as base64
    except (LookupError, ValueError):
        raise UserError("data.encoding is not the name of an encoding: try utf-8") from None
    if config.source == "conll":
        return read_conll(path, config)
    if config.source == "json":
        return _read_json_lines(path, config.columns, config.encoding)
    return _read_csv(path, config.columns, config.encoding, config.delimiter)


def _read_csv(path: Path, columns: Columns, encoding: str, delimiter: str) -> Iterator[Batch]:
    """RFC 4180 with a header; quoted fields may hold delimiters, quotes and line breaks."""
    wanted = columns.all()
    if codecs.lookup(encoding).name == "utf-8":
        encoding = "utf-8-sig"  # the same, less the mark that spreadsheets put in front
    row = line = 0
    # Bytes that cannot be decoded become lone surrogates, which the check of cells finds, so
    # that the error has row and column, and columns that nobody asked for do not matter.
    with path.open(encoding=encoding, errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            header = [name.strip() for name in next((r for r in reader if r), [])]
            if not header:
                raise UserError(f"{path} is empty")
            hint = " or data.delimiter" if len(header) == 1 else ""
            require_columns(str(path), wanted, header, hint)
            places = [header.index(name) for name in wanted]
            records: list[list[str]] = []
            lines: list[int] = []
            line = reader.line_num + 1
            for record in reader:
                if record:  # a blank line is no row
                    row += 1
                    if len(record) != len(header):
                        count = f"{len(record)} fields instead of {len(header)}"
                        raise UserError(f"{path}: row {row} (line {line}): {count}")
                    records.append(record)
                    lines.append(line)
                if len(records) == BATCH_ROWS:
                    yield _csv_batch(path, row, wanted, places, records, lines)
                    records, lines = [], []
                line = reader.line_num + 1
        except csv.Error as error:
            place = f"row {row + 1} (line {line})" if row or line else "header"
            raise UserError(f"{path}: {place}: malformed CSV: {error}") from None
        except UnicodeError:
            problem = f"bytes that are not in data.encoding ({encoding})"
            raise UserError(f"{path}: after row {row}: {problem}") from None
    if records:
        yield _csv_batch(path, row, wanted, places, records, lines)


def _csv_batch(
    path: Path,
    last_row: int,
    wanted: Sequence[str],
    places: Sequence[int],
    records: list[list[str]],
    lines: list[int],
) -> Batch:
    columns: dict[str, list[object]] = {
        name: [record[place] for record in records]
        for name, place in zip(wanted, places, strict=True)
    }
    return Batch(str(path), last_row - len(records) + 1, columns, lines)


def _read_json_lines(path: Path, columns: Columns, encoding: str) -> Iterator[Batch]:
    """One JSON object a line; a group column may be absent from some rows, not from all."""
    wanted = columns.all()
    required = [name for name in wanted if name not in columns.groups]
    seen: dict[str, None] = {}
    records: list[dict[str, Any]] = []
    lines: list[int] = []
    row = offset = 0
    with path.open("rb") as file:
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


def _read_parquet(path: Path, config: DataConfig) -> Iterator[Batch]:
    wanted = config.columns.all()
    try:
        with pq.ParquetFile(path) as file:
            require_columns(str(path), wanted, list(file.schema_arrow.names))
            names = class_names(file.schema_arrow, config.columns.label)
            row = 1
            for chunk in file.iter_batches(batch_size=BATCH_ROWS, columns=wanted):
                yield arrow_batch(str(path), row, chunk, config, names)
                row += chunk.num_rows
    except pa.ArrowException:
        raise UserError(f"{path} is not a whole Parquet file") from None


def arrow_batch(
    file: str,
    first_row: int,
    chunk: pa.RecordBatch | pa.Table,
    config: DataConfig,
    names: Sequence[str] | None,
) -> Batch:
    """A batch of Arrow columns; class numbers become class names where these are the labels."""
    columns = {name: _values(chunk, name, file, first_row) for name in config.columns.all()}
    column = config.columns.label
    if names is not None and config.scheme is not None:
        columns[column] = [
            [_class_name(v, names) for v in tags] if isinstance(tags, list) else tags
            for tags in columns[column]
        ]
    elif names is not None and (not config.labels or set(config.labels) == set(names)):
        columns[column] = [_class_name(v, names) for v in columns[column]]
    return Batch(file, first_row, columns)


def _class_name(value: object, names: Sequence[str]) -> str | None:
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else None


def _values(
    chunk: pa.RecordBatch | pa.Table, column: str, file: str, first_row: int
) -> list[object]:
    values = chunk.column(column)
    try:
        return list(values.to_pylist())
    except UnicodeDecodeError:
        empty = Batch(file, first_row, {})
        for index, value in enumerate(values):
            try:
                value.as_py()
            except UnicodeDecodeError:
                raise empty.error(index, column, "bytes that are not UTF-8") from None
        raise


def class_names(schema: pa.Schema, column: str) -> list[str] | None:
    """Names of the classes that ``datasets`` stores beside a column of class numbers, if any.

    The column may also hold lists of class numbers: the tags of words.
    """
    if b"huggingface" not in (schema.metadata or {}):
        return None
    from datasets import Features

    feature = Features.from_arrow_schema(schema).get(column)
    return getattr(getattr(feature, "feature", feature), "names", None)
