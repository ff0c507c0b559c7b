"""Checks every cell of raw batches and puts them together as one Table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from common.data.batch import Batch
from common.data.schema import Columns
from common.data.table import TEST, TRAIN, VALIDATION, Table, Tags, Texts, text_key
from common.errors import UserError

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


class Builder:
    """Rows with one label each; the columns of batches, appended."""

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
        """Check and append the rows of a batch.

        Raises:
            UserError: Names file, row and column of the first fault.
        """
        self._add_texts(batch)
        self._add_labels(batch)
        for name, values in self._groups.items():
            for index, value in enumerate(batch.columns[name]):
                values.append(cell_name(value, batch, index, name))
        if self._columns.split is not None:
            self._add_split(batch, self._columns.split)
        file_id = self._files.setdefault(batch.file, len(self._files))
        count = len(batch.columns[self._columns.text])
        self._file_ids.extend([file_id] * count)
        self._rows.extend(range(batch.first_row, batch.first_row + count))

    def finish(self) -> Table:
        """The rows of all batches."""
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
                raise undecodable(batch, index, column) from None
        self._texts.append(pa.array(texts, pa.large_string()))

    def _add_labels(self, batch: Batch) -> None:
        column = self._columns.label
        for index, value in enumerate(batch.columns[column]):
            name = cell_name(value, batch, index, column)
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
            split = SPLITS.get(cell_name(value, batch, index, column).lower())
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


def cell_name(value: object, batch: Batch, index: int, column: str) -> str:
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
            raise undecodable(batch, index, column) from None
    return name


def undecodable(batch: Batch, index: int, column: str) -> UserError:
    """The error for a cell whose bytes are not in the configured encoding."""
    return batch.error(index, column, "bytes that are not in data.encoding")


def _is_whole(name: str) -> bool:
    return name.removeprefix("-").isdecimal()


def _objects(values: list[str]) -> NDArray[np.object_]:
    """An object array whose equal strings are one object."""
    pool: dict[str, str] = {}
    return np.array([pool.setdefault(value, value) for value in values], dtype=object)
