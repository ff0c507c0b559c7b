"""Data sets of the Hugging Face hub (or a local folder in its layout), through ``datasets``."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.data.batch import BATCH_ROWS, Batch, require_columns
from common.data.schema import DataConfig
from common.data.sources.arrow import arrow_batch, class_names
from common.data.sources.base import Source
from common.data.sources.files import contents
from common.errors import UserError


class Hub(Source):
    """A data set of the hub, or a local folder in its layout."""

    name = "hub"
    tagged = True

    def read(self, config: DataConfig, test: str | None, downloads: Path | None) -> Iterator[Batch]:
        """The rows of the split ``test``, else of ``data.hub_split``."""
        # ``datasets`` takes a local file of equal size and time for the one that it knows.
        fetched = downloads is not None and not _is_folder(config)
        keep = contextlib.nullcontext(downloads) if fetched else tempfile.TemporaryDirectory()
        with keep as folder:
            yield from read_hub(config, test or config.hub_split, Path(str(folder)))

    def stamp(self, config: DataConfig, test: str | None) -> str | None:
        """The content of a local folder.

        A data set of the hub has the same stamp always: it is kept until its revision is set to
        another.
        """
        if not _is_folder(config):
            return ""
        folder = Path(str(config.path)).expanduser()
        return contents(sorted(path for path in folder.rglob("*") if path.is_file()))

    def local_paths(self, config: DataConfig) -> tuple[str, ...]:
        """The path, where it is a local folder."""
        return ("path",) if _is_folder(config) else ()

    def own_test_set(self, config: DataConfig) -> str | None:
        """The split of the test rows."""
        return config.hub_test_split


def _is_folder(config: DataConfig) -> bool:
    return bool(config.path) and Path(str(config.path)).expanduser().is_dir()


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
