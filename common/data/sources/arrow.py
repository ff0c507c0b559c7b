"""Rows of Arrow tables, as Parquet files and the hub give them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from common.data.batch import Batch
from common.data.schema import DataConfig

if TYPE_CHECKING:
    import pyarrow as pa


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
    elif names is not None and (
        not config.labels
        or set(config.labels) == set(names)
        or set(config.label_codes) == set(names)
    ):
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
