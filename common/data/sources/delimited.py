"""CSV files, read row by row with the standard library so that every fault has its place.

pandas, which ``datasets`` uses, pads short rows and skips blank lines silently, and ``datasets``
leaves a second copy of the private text in its cache.
"""

from __future__ import annotations

import codecs
import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from common.data.batch import BATCH_ROWS, Batch, require_columns
from common.data.schema import Columns, DataConfig
from common.data.sources.files import FileSource, check_encoding
from common.errors import UserError

# The module's default of 131,072 characters is less than a court ruling.
csv.field_size_limit(sys.maxsize)


class Csv(FileSource):
    """CSV files with a header."""

    name = "csv"
    suffixes = (".csv",)

    def read_file(self, path: Path, config: DataConfig) -> Iterator[Batch]:
        """The mapped columns of one file, in batches."""
        check_encoding(config)
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
