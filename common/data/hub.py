"""Data sets of the Hugging Face hub (or a local folder in its layout), through ``datasets``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.data.files import arrow_batch, class_names
from common.data.records import BATCH_ROWS, Batch, require_columns
from common.data.schema import DataConfig
from common.errors import UserError


def read_hub(config: DataConfig, split: str, cache_dir: Path) -> Iterator[Batch]:
    """The mapped columns of one split, in batches; files are kept under ``cache_dir``."""
    if not config.path:
        raise UserError("data.path is not set: data.source=hub needs the id of a data set")
    data = _load(config, split, cache_dir)
    name = f"{config.path}[{split}]"
    require_columns(name, config.columns.all(), list(data.column_names))
    classes = class_names(data.features.arrow_schema, config.columns.label)
    data = data.select_columns(config.columns.all()).with_format("arrow")
    row = 1
    for chunk in data.iter(BATCH_ROWS):
        yield arrow_batch(name, row, chunk, config, classes)
        row += chunk.num_rows
    if row == 1:
        raise UserError(f"{name} has no data rows")


def _load(config: DataConfig, split: str, cache_dir: Path) -> Any:
    import datasets

    bars = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(
            config.path,
            config.hub_name,
            split=split,
            revision=config.hub_revision,
            cache_dir=str(cache_dir),
        )
    except Exception as error:  # the loader raises what its many back ends raise
        check = "check data.path, data.hub_name, data.hub_split and the network"
        kind = type(error).__name__
        raise UserError(f"{config.path}[{split}] cannot be loaded ({kind}): {check}") from None
    finally:
        if not bars:
            datasets.enable_progress_bars()
