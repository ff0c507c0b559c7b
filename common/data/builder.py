"""Checks every cell of raw batches and puts them together as one Table."""

from __future__ import annotations

from datetime import date, time
from decimal import Decimal
from uuid import UUID

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from common.data.batch import Batch
from common.data.labels import LabelCodec
from common.data.normal import normal_form, visible
from common.data.schema import DataConfig
from common.data.table import TEST, TRAIN, VALIDATION, Table, Tags, Texts, text_key, twin_key
from common.errors import UserError

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

    def __init__(self, config: DataConfig, discover: bool, folded_keys: bool) -> None:
        self._columns = config.columns
        self._fold_case = config.fold_case
        self._codec = LabelCodec(
            config.labels,
            config.label_codes,
            discover=discover,
            fold_case=config.fold_case,
            column=config.columns.label,
        )
        self._texts: list[pa.Array] = []
        self._keys: list[bytes] = []
        self._twin_keys: list[bytes] | None = [] if folded_keys else None
        self._labels: list[int] = []
        self._groups: dict[str, list[str]] = {name: [] for name in config.columns.groups}
        self._group_names: dict[str, str] = {}
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
                values.append(self._group(cell_name(value, batch, index, name)))
        if self._columns.split is not None:
            self._add_split(batch, self._columns.split)
        file_id = self._files.setdefault(batch.file, len(self._files))
        count = len(batch.columns[self._columns.text])
        self._file_ids.extend([file_id] * count)
        self._rows.extend(range(batch.first_row, batch.first_row + count))

    def finish(self) -> Table:
        """The rows of all batches."""
        if self._codec.discover:
            self._sort_discovered()
        labels = np.array(self._labels, dtype=np.int64)
        chunks = self._texts or [pa.array([], pa.large_string())]
        return Table(
            texts=Texts(pa.concat_arrays(chunks)),
            labels=labels,
            label_names=tuple(self._codec.names),
            groups={name: _objects(values) for name, values in self._groups.items()},
            split=None if self._columns.split is None else _objects(self._split),
            keys=np.frombuffer(b"".join(self._keys), dtype=np.uint64),
            twin_keys=(
                None
                if self._twin_keys is None
                else np.frombuffer(b"".join(self._twin_keys), dtype=np.uint64)
            ),
            coding=self._codec.coding,
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
                binary = ": it is binary, convert the column to text"
                hint = binary if isinstance(text, bytes) else ""
                raise batch.error(index, column, f"the value is not text{hint}")
            # Most texts show a letter at once.
            if not text[:1].isalnum() and not visible(text).strip():
                raise batch.error(index, column, "the text is empty")
            self._add_key(text, batch, index)
        self._texts.append(pa.array(texts, pa.large_string()))

    def _add_key(self, text: str, batch: Batch, index: int) -> None:
        try:
            self._keys.append(text_key(text))
        except UnicodeEncodeError as error:
            raise undecodable(error, batch, index, self._columns.text) from None
        if self._twin_keys is not None:
            self._twin_keys.append(twin_key(text))

    def _group(self, value: str) -> str:
        """A group value in the normal form."""
        name = self._group_names.get(value)
        if name is None:
            name = self._group_names[value] = normal_form(value, self._fold_case)
        return name

    def _add_labels(self, batch: Batch) -> None:
        column = self._columns.label
        for index, value in enumerate(batch.columns[column]):
            name = cell_name(value, batch, index, column)
            if not name:
                raise batch.error(index, column, "the label is missing")
            self._labels.append(self._codec.number(name, batch, index))

    def _add_split(self, batch: Batch, column: str) -> None:
        for index, value in enumerate(batch.columns[column]):
            split = SPLITS.get(cell_name(value, batch, index, column).lower())
            if split is None:
                raise batch.error(index, column, "must be train, validation or test")
            self._split.append(split)

    def _sort_discovered(self) -> None:
        """Check the discovered names, and number them in their order."""
        counts = np.bincount(self._labels, minlength=len(self._codec.names))
        self._codec.check_discovered(counts.tolist())
        rank = self._codec.sort()
        self._labels = [rank[number] for number in self._labels]


def cell_name(value: object, batch: Batch, index: int, column: str) -> str:
    """A label or group value as a stripped string, "" for none.

    Truth values are ``true`` and ``false``; numbers that are whole have no decimals.

    Raises:
        UserError: If the value is a list, a mapping or binary.
    """
    if value is None or value != value:  # NaN, by which pandas writes "no value"
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (float, Decimal)) and value == value // 1:
        value = int(value)
    if isinstance(value, (date, time)):
        value = value.isoformat()
    if isinstance(value, bytes):
        problem = "the value is binary: convert the column to text"
        raise batch.error(index, column, problem)
    if isinstance(value, list):
        problem = "the value is a list: write one value, or set task=multilabel for several labels"
        raise batch.error(index, column, problem)
    if not isinstance(value, (str, int, float, Decimal, UUID)):
        raise batch.error(index, column, "the value is neither a string nor a number")
    name = str(value).strip()
    if not name.isascii():
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise undecodable(error, batch, index, column) from None
    return name


def undecodable(error: UnicodeEncodeError, batch: Batch, index: int, column: str) -> UserError:
    """The error for a cell that is no text: its bytes are not in the configured encoding."""
    if not 0xDC80 <= ord(error.object[error.start]) <= 0xDCFF:  # what surrogateescape makes
        return batch.error(index, column, "half of a surrogate pair, as of a broken emoji")
    problem = "bytes that are not in data.encoding: try data.encoding=cp1252 (Windows)"
    return batch.error(index, column, problem)


def _objects(values: list[str]) -> NDArray[np.object_]:
    """An object array whose equal strings are one object."""
    pool: dict[str, str] = {}
    return np.array([pool.setdefault(value, value) for value in values], dtype=object)
