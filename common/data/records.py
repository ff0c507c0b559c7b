"""From raw columns, as a source yields them, to a checked Table."""

from __future__ import annotations

from collections.abc import Iterable

from common.data.batch import Batch
from common.data.builder import Builder
from common.data.schema import DataConfig, target_of
from common.data.table import Table
from common.data.targets import LabelsBuilder, NumberBuilder, TagBuilder, TextBuilder

BUILDERS: dict[str, type[Builder]] = {
    "label": Builder,
    "tags": TagBuilder,
    "labels": LabelsBuilder,
    "number": NumberBuilder,
    "none": TextBuilder,
}


def build_table(
    batches: Iterable[Batch],
    config: DataConfig,
    *,
    discover: bool = False,
    folded_keys: bool = True,
) -> Table:
    """Check every cell and put the batches together.

    Args:
        batches: The mapped columns.
        config: The columns, the labels and what the label column holds; ``scheme`` is that of the
            batches' tags.
        discover: Whether the label names are the values found, where ``config`` has none: in
            numerical order if all are whole numbers, else in alphabetical order.
        folded_keys: Whether texts that differ in case or white space count as copies.

    Raises:
        UserError: Names file, row and column of the first fault, never a value.
    """
    builder = BUILDERS[target_of(config)](config, discover, folded_keys)
    for batch in batches:
        builder.add(batch)
    return builder.finish()
