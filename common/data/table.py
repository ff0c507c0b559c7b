"""Labelled text in memory, or memory-mapped from the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from common.data.normal import normal_form

TRAIN, VALIDATION, TEST = "train", "validation", "test"
Indices = NDArray[np.int64] | NDArray[np.bool_] | Sequence[int]


class Texts(Sequence[str]):
    """A sequence of strings over Arrow memory: a string is made only when it is asked for."""

    def __init__(
        self, values: pa.LargeStringArray, positions: NDArray[np.int64] | None = None
    ) -> None:
        self._values = values
        self._positions = np.arange(len(values)) if positions is None else positions

    @property
    def arrow(self) -> pa.LargeStringArray:
        """The strings as one Arrow array (a copy where rows were selected)."""
        return self._values.take(pa.array(self._positions))

    def select(self, indices: NDArray[np.int64]) -> Texts:
        """The strings at ``indices``, over the same memory."""
        return Texts(self._values, self._positions[indices])

    def __len__(self) -> int:
        return len(self._positions)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            found = self._values.take(pa.array(self._positions[index]))
            return cast("list[str]", found.to_pylist())
        return cast(str, self._values[int(self._positions[index])].as_py())

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), 1024):
            yield from self[start : start + 1024]


@dataclass(frozen=True, eq=False)
class Tags:
    """A class number for each word of n texts: `codes` [total words], cut by `offsets` [n + 1].

    0 is outside; type k of the label names has 2 k + 1 where it begins and 2 k + 2 within.
    """

    codes: NDArray[np.int64]
    offsets: NDArray[np.int64]

    def of(self, index: int) -> NDArray[np.int64]:
        """The class numbers of one text's words."""
        return self.codes[self.offsets[index] : self.offsets[index + 1]]

    def select(self, indices: NDArray[np.int64]) -> Tags:
        """Those of the texts at `indices`."""
        rows = [self.of(int(index)) for index in indices]
        return Tags(np.concatenate([np.zeros(0, np.int64), *rows]), cuts([len(r) for r in rows]))


def cuts(lengths: Sequence[int]) -> NDArray[np.int64]:
    """Offsets [n + 1] of n consecutive stretches."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


# Between the words of a tagged text: no reader lets a word hold it.
WORD_BREAK = "\n"


@dataclass(frozen=True, eq=False)
class Table:
    """n labelled texts.

    texts: n strings.  labels: int64 in [0, K).  label_names: the K names in order.
    groups: by column, n strings (object array; "" where the row has no value).
    split: n of "train", "validation", "test" where a split column is mapped, else None.
    keys: uint64 digest of each text; equal texts have equal keys.
    tags: of tagged texts, whose words WORD_BREAK divides; their labels are then 1 + the first
    entity's type, 0 without any (for partitions by label alone).
    targets: float32 [n, k] where a row's target is not one label: 1 for each of K labels that it
    has, or one number brought from its bounds to [-1, 1].  Its label is then (for partitions by
    label alone) 1 + its first label's number, 0 without any, or the tenth of the bounds.
    twin_keys: uint64 digest that texts share which differ in case or white space alone; None where
    equal texts alone count as copies.
    coding: how the labels were written, "names" or "codes"; None where there are none.
    replaced: how often what was replaced in the texts of the whole table, by kind, where they were
    de-identified.
    files, file_ids, rows: where each row came from; rows are data rows from 1 (no header).
    """

    texts: Texts
    labels: NDArray[np.int64]
    label_names: tuple[str, ...]
    groups: dict[str, NDArray[np.object_]]
    split: NDArray[np.object_] | None
    keys: NDArray[np.uint64]
    files: tuple[str, ...]
    file_ids: NDArray[np.int64]
    rows: NDArray[np.int64]
    tags: Tags | None = None
    targets: NDArray[np.float32] | None = None
    replaced: dict[str, int] | None = None
    twin_keys: NDArray[np.uint64] | None = None
    coding: str | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def side_keys(self) -> NDArray[np.uint64]:
        """The keys by which sides of a split are drawn: copies share one."""
        return self.keys if self.twin_keys is None else self.twin_keys

    def place(self, index: int) -> str:
        """Where record ``index`` came from, for messages: file and row, never a value."""
        return f"{self.files[int(self.file_ids[index])]}: row {int(self.rows[index])}"

    def select(self, indices: Indices) -> Table:
        """The records at ``indices`` (integers in any order, or a mask of length n)."""
        chosen: NDArray[Any] = np.asarray(indices)
        chosen = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen.astype(np.int64)
        return Table(
            texts=self.texts.select(chosen),
            labels=self.labels[chosen],
            label_names=self.label_names,
            groups={name: values[chosen] for name, values in self.groups.items()},
            split=None if self.split is None else self.split[chosen],
            keys=self.keys[chosen],
            files=self.files,
            file_ids=self.file_ids[chosen],
            rows=self.rows[chosen],
            tags=None if self.tags is None else self.tags.select(chosen),
            targets=None if self.targets is None else self.targets[chosen],
            replaced=self.replaced,
            twin_keys=None if self.twin_keys is None else self.twin_keys[chosen],
            coding=self.coding,
        )

    def fingerprint(self) -> str:
        """Hex SHA-256 over texts (through their 64-bit keys) and labels, in order."""
        digest = hashlib.sha256(np.ascontiguousarray(self.keys).tobytes())
        digest.update(np.ascontiguousarray(self.labels).tobytes())
        if self.tags is not None:
            digest.update(np.ascontiguousarray(self.tags.codes).tobytes())
        if self.targets is not None:
            digest.update(np.ascontiguousarray(self.targets).tobytes())
        return digest.hexdigest()


def text_key(text: str) -> bytes:
    """Eight bytes that equal texts share."""
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def twin_key(text: str) -> bytes:
    """Eight bytes that texts share which differ in case, white space or Unicode form alone."""
    return text_key(normal_form(text, fold_case=True))
