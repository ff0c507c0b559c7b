"""CSV files, read row by row with the standard library so that every fault has its place.

pandas, which ``datasets`` uses, pads short rows and skips blank lines silently, and ``datasets``
leaves a second copy of the private text in its cache.
"""

from __future__ import annotations

import codecs
import csv
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from common.data.batch import BATCH_ROWS, Batch, require_columns
from common.data.normal import normal_form
from common.data.schema import DataConfig, target_of
from common.data.sources.files import FileSource, has_suffix, open_text
from common.errors import UserError

# The module's default of 131,072 characters is less than a court ruling.
csv.field_size_limit(sys.maxsize)
UNQUOTED = "set data.quoted=false if quotes are part of the texts"
TABS = ("tab", "\\t")
# A first line such as "sep=;", by which spreadsheets say how columns are divided.
SEPARATOR = "sep="


class Csv(FileSource):
    """CSV files with a header; a file called .tsv has tabs between its columns."""

    name = "csv"
    suffixes = (".csv", ".tsv")

    def check(self, config: DataConfig) -> None:
        """Raise UserError for a delimiter that is none."""
        super().check(config)
        if len(config.delimiter) != 1 and config.delimiter not in TABS:
            raise UserError("data.delimiter must be one character, or tab")

    def read_file(self, path: Path, config: DataConfig) -> Iterator[Batch]:
        """The mapped columns of one file, in batches."""
        return _read_csv(path, config)


def _read_csv(path: Path, config: DataConfig) -> Iterator[Batch]:
    """RFC 4180 with a header; quoted fields may hold delimiters, quotes and line breaks."""
    encoding, row, line = config.encoding, 0, 0
    if codecs.lookup(encoding).name == "utf-8":
        encoding = "utf-8-sig"  # the same, less the mark that spreadsheets put in front
    # Bytes that cannot be decoded become lone surrogates, which the check of cells finds, so
    # that the error has row and column, and columns that nobody asked for do not matter.
    with open_text(path, encoding, errors="surrogateescape") as file:
        lines = _Lines(file)
        reader = _reader(path, config, lines)
        try:
            header = [name.strip("\ufeff \t") for name in next((r for r in reader if r), [])]
            if not header:
                raise UserError(f"{path} is empty")
            wanted, places = _columns(path, config, header)
            strays = _StrayQuotes(path, config, header, reader.dialect.delimiter)
            records: list[list[str]] = []
            starts: list[int] = []
            line = lines.number + 1
            lines.taken.clear()
            for record in reader:
                if record:  # a blank line is no row
                    row += 1
                    if len(record) != len(header):
                        count = f"{len(record)} fields instead of {len(header)}"
                        raise UserError(f"{path}: row {row} (line {line}): {count}")
                    strays.check(record, lines.taken, row, line)
                    records.append(record)
                    starts.append(line)
                if len(records) == BATCH_ROWS:
                    yield _csv_batch(path, row, wanted, places, records, starts)
                    records, starts = [], []
                line = lines.number + 1
                lines.taken.clear()
            strays.finish()
        except csv.Error as error:
            place = f"row {row + 1} (line {line})" if row or line else "header"
            raise UserError(f"{path}: {place}: malformed CSV: {_cause(error)}") from None
        except UnicodeError:
            problem = f"bytes that are not in data.encoding ({encoding})"
            raise UserError(f"{path}: after row {row}: {problem}") from None
    if records:
        yield _csv_batch(path, row, wanted, places, records, starts)


class _Lines(Iterator[str]):
    """The lines of a file, which remembers those of the current record."""

    def __init__(self, file: Iterable[str]) -> None:
        self._file = iter(file)
        self.number = 0
        self.taken: list[str] = []

    def __next__(self) -> str:
        line = next(self._file)
        self.number += 1
        self.taken.append(line)
        return line


def _reader(path: Path, config: DataConfig, lines: Iterator[str]) -> Any:
    """The records of a file, after a line that names the delimiter."""
    delimiter = "\t" if config.delimiter in TABS else config.delimiter
    if delimiter == "," and has_suffix(path, (".tsv",)):
        delimiter = "\t"
    first = next(lines, "")
    named = first.strip("\ufeff\r\n ").lower()
    if named.startswith(SEPARATOR) and len(named) == len(SEPARATOR) + 1:
        delimiter = named[-1]
    elif first:
        lines = _after(first, lines)
    quoting: Any = csv.QUOTE_MINIMAL if config.quoted else csv.QUOTE_NONE
    return csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)


def _after(first: str, lines: Iterator[str]) -> Iterator[str]:
    yield first
    yield from lines


def _columns(path: Path, config: DataConfig, header: list[str]) -> tuple[list[str], list[int]]:
    """The mapped columns and their places in the header."""
    hint = " or data.delimiter" if len(header) == 1 else ""
    wanted = config.columns.all()
    require_columns(str(path), wanted, header, hint)
    return wanted, [header.index(name) for name in wanted]


def _cause(error: csv.Error) -> str:
    """What was wrong, in words that help."""
    if "expected after" in str(error):
        return f"text after the closing quote of a field: {UNQUOTED}"
    if "unexpected end" in str(error):
        return f"a quote is never closed: {UNQUOTED}"
    return str(error)


class _StrayQuotes:
    """Finds rows that two stray quotes have joined to one.

    A quoted field can span lines.  One of its lines is taken for a row of its own where it has as
    many fields as the header and, in the label column, a label (or a number, where labels are
    numbers).  Where labels are discovered, they are those of rows on one line.
    """

    def __init__(
        self, path: Path, config: DataConfig, header: Sequence[str], delimiter: str
    ) -> None:
        self._path = path
        self._width = len(header)
        self._column = config.columns.label
        self._place = header.index(self._column) if self._column else -1
        self._delimiter = delimiter
        self._config = config
        self._numeric = target_of(config) == "number"
        self._several = target_of(config) == "labels"
        names = [*config.labels, *config.label_codes]
        self._known = {normal_form(name, True) for name in names}
        self._declared = bool(config.labels)
        self._suspects: list[tuple[str, set[str]]] = []

    def check(self, record: Sequence[str], lines: Sequence[str], row: int, line: int) -> None:
        """Look at one record and the lines that it spans.

        Raises:
            UserError: If one of the lines is a row of its own.
        """
        if self._place < 0:
            return
        if len(lines) == 1:
            if not self._declared and not self._numeric and len(self._known) < 1000:
                self._known.add(normal_form(record[self._place], True))
            return
        opened = next((n for n, field in enumerate(record) if "\n" in field or "\r" in field), 0)
        # The first line of an honest record ends within the quoted field, and the last begins in
        # it: only columns on the far side of the field can tell that a line is a whole row.
        first = 0 if self._place > opened else 1
        last = len(lines) if self._place < opened else len(lines) - 1
        found = {name for text in lines[first:last] for name in self._labels_of(text)}
        place = f"{self._path}: row {row} (line {line})"
        if self._numeric and found:
            raise self._error(place)
        if found:
            self._suspects.append((place, found))
        if self._declared:
            self.finish()

    def finish(self) -> None:
        """Raise UserError for the first record that holds a label of another row."""
        for place, found in self._suspects:
            if found & self._known:
                raise self._error(place)
        if self._declared:
            self._suspects = []

    def _labels_of(self, line: str) -> Iterator[str]:
        """The label of a line that has the form of a row."""
        text = line.rstrip("\r\n")
        fields = text.split(self._delimiter)
        if len(fields) != self._width:
            return
        value = fields[self._place].strip().strip('"')
        if self._numeric:
            if value.replace(".", "", 1).replace("-", "", 1).isdecimal():
                yield value
        elif self._several:
            parts = value.split(self._config.label_delimiter)
            yield from (normal_form(part, True) for part in parts)
        else:
            yield normal_form(value, True)

    def _error(self, place: str) -> UserError:
        return UserError(
            f"{place}: a quoted field spans lines that are rows of their own: remove the stray "
            f"quote, or {UNQUOTED}"
        )


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
