"""From raw columns, as a source yields them, to a checked Table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from common.data.batch import Batch
from common.data.builder import Builder
from common.data.schema import Columns
from common.data.table import Table
from common.data.targets import LabelsBuilder, NumberBuilder, TagBuilder, TextBuilder


def build_table(
    batches: Iterable[Batch],
    columns: Columns,
    labels: Sequence[str],
    discover: bool = False,
    scheme: str | None = None,
    *,
    target: str = "label",
    label_delimiter: str = ";",
    bounds: Sequence[float] = (),
) -> Table:
    """Check every cell and put the batches together.

    With ``discover`` and no ``labels``, the label names are the values found: in numerical order
    if all are whole numbers, else in alphabetical order.  Raises UserError with file, row and
    column, never with a value.

    With ``scheme`` a text is a list of words and its label a list of as many tags; the names are
    then of entity types.  ``target``, ``label_delimiter`` and ``bounds`` are those of DataConfig.
    """
    kinds: dict[str, Callable[[Columns, Sequence[str], bool], Builder]] = {
        "label": Builder,
        "tags": partial(TagBuilder, scheme=scheme or ""),
        "labels": partial(LabelsBuilder, delimiter=label_delimiter),
        "number": partial(NumberBuilder, bounds=bounds),
        "none": TextBuilder,
    }
    builder = kinds[target if scheme is None else "tags"](columns, labels, discover)
    for batch in batches:
        builder.add(batch)
    return builder.finish()
