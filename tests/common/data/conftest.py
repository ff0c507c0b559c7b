from __future__ import annotations

import pytest

from common.data.batch import Batch
from common.data.records import build_table
from common.data.schema import Columns, DataConfig


@pytest.fixture
def make_table():
    """A table from lists, as a source would give it."""

    def make(texts, labels, split=None, **groups):
        columns = {"text": list(texts), "label": list(labels), **groups}
        names = Columns(groups=list(groups), split=None if split is None else "split")
        if split is not None:
            columns["split"] = split
        found = sorted({str(label) for label in labels})
        return build_table([Batch("test", 1, columns)], DataConfig(columns=names, labels=found))

    return make
