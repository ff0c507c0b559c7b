"""From raw columns, as a source yields them, to a checked Table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from common.data.schema import Columns
from common.data.table import (
    TEST,
    TRAIN,
    VALIDATION,
    WORD_BREAK,
    Table,
    Tags,
    Texts,
    cuts,
    text_key,
)
from common.errors import UserError
from common.tags import TagError, to_bio

BATCH_ROWS = 8192
MAX_DISCOVERED = 1000
SPLITS = {
    "train": TRAIN,
    "training": TRAIN,
    "validation": VALIDATION,
    "valid": VALIDATION,
    "val": VALIDATION,
    "dev": VALIDATION,
    "test": TEST,
}


@dataclass(frozen=True)
class Batch:
    """Consecutive data rows of one file, by column.

    first_row: number of the first row, from 1.  lines: line in the file at which each row
    starts, where the format has lines that differ from rows.
    """

    file: str
    first_row: int
    columns: dict[str, list[object]]
    lines: Sequence[int] | None = None

    def error(self, index: int, column: str, problem: str) -> UserError:
        """The error for one cell; ``problem`` must not hold the value."""
        line = f" (line {self.lines[index]})" if self.lines is not None else ""
        row = self.first_row + index
        return UserError(f"{self.file}: row {row}{line}, column '{column}': {problem}")


def require_columns(file: str, wanted: Iterable[str], have: Sequence[str], hint: str = "") -> None:
    """Raise UserError naming the first wanted column that ``file`` lacks or has twice."""
    for name in wanted:
        if have.count(name) > 1:
            raise UserError(f"{file}: column '{name}' appears {have.count(name)} times")
        if name not in have:
            # In a file without a header the names are a record: do not repeat long ones.
            shown = ", ".join(n if len(n) <= 40 else "(a long name)" for n in have[:30])
            shown = shown.encode("ascii", "backslashreplace").decode()
            raise UserError(
                f"{file}: no column '{name}' (columns: {shown}): set data.columns{hint}"
            )


def build_table(
    batches: Iterable[Batch],
    columns: Columns,
    labels: Sequence[str],
    discover: bool = False,
    scheme: str | None = None,
    *,
    target: str = "label",
    label_delimiter: str = ";",
    bounds: Sequence[float] = (),
) -> Table:
    """Check every cell and put the batches together.

    With ``discover`` and no ``labels``, the label names are the values found: in numerical order
    if all are whole numbers, else in alphabetical order.  Raises UserError with file, row and
    column, never with a value.

    With ``scheme`` a text is a list of words and its label a list of as many tags; the names are
    then of entity types.  ``target``, ``label_delimiter`` and ``bounds`` are those of DataConfig.
    """
    kinds: dict[str, Callable[[Columns, Sequence[str], bool], _Builder]] = {
        "label": _Builder,
        "tags": partial(_TagBuilder, scheme=scheme or ""),
        "labels": partial(_LabelsBuilder, delimiter=label_delimiter),
        "number": partial(_NumberBuilder, bounds=bounds),
        "none": _TextBuilder,
    }
    builder = kinds[target if scheme is None else "tags"](columns, labels, discover)
    for batch in batches:
        builder.add(batch)
    return builder.finish()


class _Builder:
    def __init__(self, columns: Columns, labels: Sequence[str], discover: bool) -> None:
        self._columns = columns
        self._names = list(labels)
        self._discover = discover and not labels
        self._codes = {name: code for code, name in enumerate(labels)}
        if not any(_is_whole(name) for name in labels):
            self._codes |= {str(code): code for code in range(len(labels))}
        self._texts: list[pa.Array] = []
        self._keys: list[bytes] = []
        self._labels: list[int] = []
        self._groups: dict[str, list[str]] = {name: [] for name in columns.groups}
        self._split: list[str] = []
        self._files: dict[str, int] = {}
        self._file_ids: list[int] = []
        self._rows: list[int] = []

    def add(self, batch: Batch) -> None:
        self._add_texts(batch)
        self._add_labels(batch)
        for name, values in self._groups.items():
            for index, value in enumerate(batch.columns[name]):
                values.append(_name(value, batch, index, name))
        if self._columns.split is not None:
            self._add_split(batch, self._columns.split)
        file_id = self._files.setdefault(batch.file, len(self._files))
        count = len(batch.columns[self._columns.text])
        self._file_ids.extend([file_id] * count)
        self._rows.extend(range(batch.first_row, batch.first_row + count))

    def finish(self) -> Table:
        labels = np.array(self._labels, dtype=np.int64)
        if self._discover:
            labels = self._sort_discovered(labels)
        chunks = self._texts or [pa.array([], pa.large_string())]
        return Table(
            texts=Texts(pa.concat_arrays(chunks)),
            labels=labels,
            label_names=tuple(self._names),
            groups={name: _objects(values) for name, values in self._groups.items()},
            split=None if self._columns.split is None else _objects(self._split),
            keys=np.frombuffer(b"".join(self._keys), dtype=np.uint64),
            files=tuple(self._files),
            file_ids=np.array(self._file_ids, dtype=np.int64),
            rows=np.array(self._rows, dtype=np.int64),
            tags=self._finished_tags(),
            targets=self._finished_targets(),
        )

    def _finished_targets(self) -> NDArray[np.float32] | None:
        return None

    def _finished_tags(self) -> Tags | None:
        return None

    def _add_texts(self, batch: Batch) -> None:
        column = self._columns.text
        texts = batch.columns[column]
        for index, text in enumerate(texts):
            if text is None:
                raise batch.error(index, column, "the text is missing")
            if not isinstance(text, str):
                raise batch.error(index, column, "the value is not text")
            if not text.strip():
                raise batch.error(index, column, "the text is empty")
            try:
                self._keys.append(text_key(text))
            except UnicodeEncodeError:
                raise _undecodable(batch, index, column) from None
        self._texts.append(pa.array(texts, pa.large_string()))

    def _add_labels(self, batch: Batch) -> None:
        column = self._columns.label
        for index, value in enumerate(batch.columns[column]):
            name = _name(value, batch, index, column)
            if not name:
                raise batch.error(index, column, "the label is missing")
            self._labels.append(self._code(name, batch, index, "label"))

    def _code(self, name: str, batch: Batch, index: int, what: str) -> int:
        """The number of a label name, a new one where names are discovered."""
        code, column = self._codes.get(name), self._columns.label
        if code is None:
            if not self._discover:
                known = len(self._names)
                problem = f"the {what} is not one of the {known} in data.labels"
                raise batch.error(index, column, problem)
            if len(self._names) == MAX_DISCOVERED:
                problem = f"more than {MAX_DISCOVERED} different labels: list them"
                raise batch.error(index, column, f"{problem} in data.labels")
            code = self._codes[name] = len(self._names)
            self._names.append(name)
        return code

    def _add_split(self, batch: Batch, column: str) -> None:
        for index, value in enumerate(batch.columns[column]):
            split = SPLITS.get(_name(value, batch, index, column).lower())
            if split is None:
                raise batch.error(index, column, "must be train, validation or test")
            self._split.append(split)

    def _sort_discovered(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        found = self._names
        if all(_is_whole(name) for name in found):
            order = sorted(range(len(found)), key=lambda code: int(found[code]))
        else:
            order = sorted(range(len(found)), key=lambda code: found[code])
        self._names = [found[code] for code in order]
        rank: NDArray[np.int64] = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order))
        return np.take(rank, labels)


class _TextBuilder(_Builder):
    """Texts alone."""

    def _add_labels(self, batch: Batch) -> None:
        self._labels.extend([0] * len(batch.columns[self._columns.text]))


class _LabelsBuilder(_Builder):
    """Any number of labels for a text: a list of names, or names with a delimiter between them."""

    def __init__(
        self, columns: Columns, labels: Sequence[str], discover: bool, *, delimiter: str
    ) -> None:
        super().__init__(columns, labels, discover)
        self._delimiter = delimiter
        self._sets: list[set[int]] = []

    def _add_labels(self, batch: Batch) -> None:
        column = self._columns.label
        for index, value in enumerate(batch.columns[column]):
            if not isinstance(value, list):
                text = _name(value, batch, index, column)
                value = text.split(self._delimiter) if text else []
            names = [_name(item, batch, index, column) for item in value]
            if not all(names):
                raise batch.error(index, column, "a label of the list is empty")
            codes = [self._code(name, batch, index, "label") for name in names]
            if len(set(codes)) < len(codes):
                raise batch.error(index, column, "the same label twice")
            self._sets.append(set(codes))

    def finish(self) -> Table:
        """With the labels in order where they were discovered."""
        if self._discover:
            order = self._sort_discovered(np.arange(len(self._names)))
            self._discover = False
            self._sets = [{int(order[code]) for code in codes} for codes in self._sets]
        self._labels = [1 + min(codes, default=-1) for codes in self._sets]
        return super().finish()

    def _finished_targets(self) -> NDArray[np.float32]:
        targets = np.zeros((len(self._sets), len(self._names)), dtype=np.float32)
        for row, codes in enumerate(self._sets):
            targets[row, sorted(codes)] = 1.0
        return targets


class _NumberBuilder(_Builder):
    """A number within public bounds."""

    def __init__(
        self, columns: Columns, labels: Sequence[str], discover: bool, *, bounds: Sequence[float]
    ) -> None:
        super().__init__(columns, labels, False)
        self._low, self._high = bounds
        self._numbers: list[float] = []

    def _add_labels(self, batch: Batch) -> None:
        column = self._columns.label
        for index, value in enumerate(batch.columns[column]):
            number = self._number(value, batch, index)
            if not self._low <= number <= self._high:
                raise batch.error(index, column, "the number is outside data.bounds")
            place = (number - self._low) / (self._high - self._low)
            self._numbers.append(2 * place - 1)
            self._labels.append(min(int(10 * place), 9))

    def _number(self, value: object, batch: Batch, index: int) -> float:
        column = self._columns.label
        if value is None or value != value or value == "":
            raise batch.error(index, column, "the number is missing")
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise batch.error(index, column, "the value is not a number")
        try:
            number = float(value)
        except (ValueError, OverflowError):
            raise batch.error(index, column, "the value is not a number") from None
        if not math.isfinite(number):
            raise batch.error(index, column, "the value is not a number")
        return number

    def _finished_targets(self) -> NDArray[np.float32]:
        return np.array(self._numbers, dtype=np.float32)[:, None]


class _TagBuilder(_Builder):
    """Lists of words with lists of tags instead of texts with labels."""

    def __init__(
        self, columns: Columns, labels: Sequence[str], discover: bool, *, scheme: str
    ) -> None:
        super().__init__(columns, labels, discover)
        self._scheme = scheme
        self._sequences: list[list[tuple[str, int]]] = []

    def _add_texts(self, batch: Batch) -> None:
        column = self._columns.text
        texts = []
        for index, words in enumerate(batch.columns[column]):
            if not isinstance(words, list) or not words:
                raise batch.error(index, column, "not a list of words")
            for position, word in enumerate(words, start=1):
                if not isinstance(word, str) or not word.strip():
                    raise batch.error(index, column, f"word {position} is not text, or empty")
            texts.append(WORD_BREAK.join(" ".join(word.split()) for word in words))
            try:
                self._keys.append(text_key(texts[-1]))
            except UnicodeEncodeError:
                raise _undecodable(batch, index, column) from None
        self._texts.append(pa.array(texts, pa.large_string()))

    def _add_labels(self, batch: Batch) -> None:
        column = self._columns.label
        for index, tags in enumerate(batch.columns[column]):
            words = batch.columns[self._columns.text][index]
            if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
                raise batch.error(index, column, "not a list of tags")
            if isinstance(words, list) and len(tags) != len(words):
                problem = f"{len(tags)} tags for {len(words)} words"
                raise batch.error(index, column, problem)
            try:
                found = to_bio(tags, self._scheme)
            except TagError as error:
                problem = f"word {error.position + 1}: {error}"
                raise batch.error(index, column, problem) from None
            self._sequences.append(
                [
                    (place, self._code(kind, batch, index, "entity type") if kind else -1)
                    for place, kind in found
                ]
            )

    def finish(self) -> Table:
        """With the types in alphabetical order where they were discovered."""
        if self._discover:
            rank = {name: code for code, name in enumerate(sorted(self._names))}
            moved = [rank[name] for name in self._names] + [-1]
            self._names = sorted(self._names)
            self._discover = False
            self._sequences = [[(p, moved[code]) for p, code in row] for row in self._sequences]
        self._labels = [
            next((code + 1 for _, code in row if code >= 0), 0) for row in self._sequences
        ]
        return super().finish()

    def _finished_tags(self) -> Tags:
        codes = [
            0 if code < 0 else 2 * code + (1 if place == "B" else 2)
            for row in self._sequences
            for place, code in row
        ]
        return Tags(np.array(codes, dtype=np.int64), cuts([len(row) for row in self._sequences]))


def _name(value: object, batch: Batch, index: int, column: str) -> str:
    """A label or group value as a stripped string, "" for none."""
    if value is None or value != value:  # NaN, by which pandas writes "no value"
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, (str, int, float)):
        raise batch.error(index, column, "the value is neither a string nor a number")
    name = str(value).strip()
    if not name.isascii():
        try:
            name.encode()
        except UnicodeEncodeError:
            raise _undecodable(batch, index, column) from None
    return name


def _undecodable(batch: Batch, index: int, column: str) -> UserError:
    return batch.error(index, column, "bytes that are not in data.encoding")


def _is_whole(name: str) -> bool:
    return name.removeprefix("-").isdecimal()


def _objects(values: list[str]) -> NDArray[np.object_]:
    """An object array whose equal strings are one object."""
    pool: dict[str, str] = {}
    return np.array([pool.setdefault(value, value) for value in values], dtype=object)
