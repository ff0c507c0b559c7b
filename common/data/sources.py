"""One door to every source of labelled text."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from common.data.database import read_query
from common.data.demo import demo_config
from common.data.files import config_files, read_file
from common.data.hub import read_hub
from common.data.records import Batch, build_table
from common.data.schema import NAMED, DataConfig, check_data, target_of
from common.data.table import Table
from common.errors import UserError


def read(
    config: DataConfig,
    path: str | None = None,
    *,
    discover: bool = False,
    hub_dir: Path | None = None,
) -> Table:
    """Read and check all rows of the source.

    ``path`` replaces the config's file, glob, query or hub split (by kind of source); the
    held-out set is read in this way.  ``discover`` takes the label names from the data where the
    config has none: right only for a reader that sees the data of all partners, for others would
    number the labels differently.  ``hub_dir`` keeps downloads; without it they are not kept.

    Raises UserError that names file, row and column of the first fault found.
    """
    check_data(config)
    if config.source == "demo":
        config = demo_config(config)
    if target_of(config) in NAMED and not config.labels and not discover:
        raise UserError("data.labels is empty: list the label names in the order all partners use")
    batches = _batches(config, path, hub_dir)
    # What a CoNLL reader hands on is in BIO already, whatever the file was in.
    scheme = "bio" if config.source == "conll" else config.scheme
    return build_table(
        batches,
        config.columns,
        config.labels,
        discover,
        scheme,
        target=config.target,
        label_delimiter=config.label_delimiter,
        bounds=config.bounds,
    )


def _batches(config: DataConfig, path: str | None, hub_dir: Path | None) -> Iterator[Batch]:
    if config.source == "sql":
        yield from read_query(config, path)
    elif config.source == "hub":
        with contextlib.nullcontext(hub_dir) if hub_dir else tempfile.TemporaryDirectory() as keep:
            yield from read_hub(config, path or config.hub_split, Path(keep))
    else:
        for file in config_files(config, path):
            yield from read_file(file, config)


def own_test_set(config: DataConfig) -> str | None:
    """What to give ``read`` as ``path`` to read the config's own test set; None: it has none."""
    if config.source == "sql":
        return config.sql_test_query
    return config.hub_test_split if config.source == "hub" else config.test_path
