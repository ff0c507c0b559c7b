"""One door to every source of labelled text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from common.data.check import check_data
from common.data.records import build_table
from common.data.schema import NAMED, DataConfig, target_of
from common.data.sources import source_of
from common.data.table import Table
from common.errors import UserError


def read(
    config: DataConfig,
    test: str | None = None,
    *,
    discover: bool = False,
    downloads: Path | None = None,
) -> Table:
    """Read and check all rows of the source.

    Args:
        config: Where the rows are and which of their columns are read.
        test: The test set to read instead, as ``Source.own_test_set`` returns it.
        discover: Whether the label names are taken from the data where the config has none.  Right
            only for a reader that sees the data of all partners; others would number the labels
            differently.
        downloads: Folder that keeps what the source fetches; None keeps nothing.

    Raises:
        UserError: Names file, row and column of the first fault found.
    """
    check_data(config)
    source = source_of(config)
    config = source.settle(config)
    if target_of(config) in NAMED and not config.labels and not discover:
        raise UserError("data.labels is empty: list the label names in the order all partners use")
    return build_table(
        source.read(config, test, downloads),
        replace(config, scheme=source.tag_scheme(config)),
        discover=discover,
        folded_keys=source.folded_keys,
    )
