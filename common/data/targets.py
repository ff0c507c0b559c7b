"""Builders for rows whose target is something else than one label."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from common.data.batch import Batch
from common.data.builder import Builder, cell_name
from common.data.numbers import could_be_thousands, parse_number
from common.data.schema import DataConfig
from common.data.table import WORD_BREAK, Table, Tags, cuts
from common.errors import UserError
from common.tags import TagError, to_bio


class TextBuilder(Builder):
    """Texts alone."""

    def _add_labels(self, batch: Batch) -> None:
        self._labels.extend([0] * len(batch.columns[self._columns.text]))


class LabelsBuilder(Builder):
    """Any number of labels for a text: a list of names, or names with a delimiter between them."""

    def __init__(self, config: DataConfig, discover: bool, folded_keys: bool) -> None:
        super().__init__(config, discover, folded_keys)
        self._delimiter = config.label_delimiter
        self._sets: list[set[int]] = []

    def _add_labels(self, batch: Batch) -> None:
        column = self._columns.label
        for index, value in enumerate(batch.columns[column]):
            if not isinstance(value, list):
                text = cell_name(value, batch, index, column)
                value = text.split(self._delimiter) if text else []
            names = [cell_name(item, batch, index, column) for item in value]
            if not all(names):
                raise batch.error(index, column, "a label of the list is empty")
            codes = [self._codec.number(name, batch, index) for name in names]
            if len(set(codes)) < len(codes):
                raise batch.error(index, column, "the same label twice")
            self._sets.append(set(codes))

    def finish(self) -> Table:
        """With the labels in order where they were discovered."""
        if self._codec.discover:
            self._codec.check_discovered(None)
            rank = self._codec.sort()
            self._sets = [{rank[number] for number in numbers} for numbers in self._sets]
        self._labels = [1 + min(codes, default=-1) for codes in self._sets]
        return super().finish()

    def _finished_targets(self) -> NDArray[np.float32]:
        targets = np.zeros((len(self._sets), len(self._codec.names)), dtype=np.float32)
        for row, codes in enumerate(self._sets):
            targets[row, sorted(codes)] = 1.0
        return targets


class NumberBuilder(Builder):
    """A number within public bounds."""

    def __init__(self, config: DataConfig, discover: bool, folded_keys: bool) -> None:
        super().__init__(config, False, folded_keys)
        self._low, self._high = config.bounds
        self._decimal = config.decimal
        self._numbers: list[float] = []
        # The first text such as 1.234, and whether others say what its point means.
        self._doubtful = ""
        self._whole = self._fraction = False

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
        if isinstance(value, bool) or not isinstance(value, (str, int, float, Decimal)):
            raise batch.error(index, column, "the value is not a number")
        try:
            if isinstance(value, str):
                self._remember(value, batch, index)
                number = parse_number(value, self._decimal)
            else:
                number = float(value)
        except ValueError as error:
            raise batch.error(index, column, str(error)) from None
        except OverflowError:
            raise batch.error(index, column, "the value is not a number") from None
        if not math.isfinite(number):
            raise batch.error(index, column, "the value is not a number")
        return number

    def _remember(self, value: str, batch: Batch, index: int) -> None:
        """Note what a text says of the decimal sign of its column."""
        if could_be_thousands(value):
            self._doubtful = self._doubtful or batch.place(index)
        elif "." in value:
            self._fraction = True
        else:
            self._whole = True

    def finish(self) -> Table:
        """The rows of all batches.

        Raises:
            UserError: If 1.234 and 567 are in one column and no other number has a fraction.
        """
        if self._decimal is None and self._doubtful and self._whole and not self._fraction:
            raise UserError(
                f"{self._doubtful}, column '{self._columns.label}': the point of this number could "
                "be between thousands: set data.decimal to '.' or ','"
            )
        return super().finish()

    def _finished_targets(self) -> NDArray[np.float32]:
        return np.array(self._numbers, dtype=np.float32)[:, None]


class TagBuilder(Builder):
    """Lists of words with lists of tags instead of texts with labels."""

    def __init__(self, config: DataConfig, discover: bool, folded_keys: bool) -> None:
        super().__init__(config, discover, folded_keys)
        assert config.scheme is not None
        self._scheme = config.scheme
        # The type of tags that have none.
        self._kind = config.labels[0] if len(config.labels) == 1 else ""
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
            self._add_key(texts[-1], batch, index)
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
                found = to_bio(tags, self._scheme, self._kind)
            except TagError as error:
                problem = f"word {error.position + 1}: {error}"
                raise batch.error(index, column, problem) from None
            self._sequences.append(
                [
                    (place, self._codec.number(kind, batch, index, "entity type") if kind else -1)
                    for place, kind in found
                ]
            )

    def finish(self) -> Table:
        """With the types in order where they were discovered."""
        if self._codec.discover:
            self._codec.check_discovered(None)
            rank = [*self._codec.sort(), -1]
            self._sequences = [[(p, rank[code]) for p, code in row] for row in self._sequences]
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
