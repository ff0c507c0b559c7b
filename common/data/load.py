"""What the rest of the program asks for: the partners' rows, the held-out rows, the labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.data.cache import cached_table
from common.data.deidentify import deidentified
from common.data.schema import NAMED, DataConfig, target_of
from common.data.sources import source_of
from common.data.split import hold_out, rows_where
from common.data.table import TEST, Table
from common.errors import UserError


def resolve_labels(config: DataConfig, cache_dir: Path) -> list[str]:
    """The label names in order: those of the config, else those found in the data.

    For the submitter of a simulation, who sees the data of all partners; the answer belongs in
    ``data.labels`` of the config that everybody gets.
    """
    if config.labels or target_of(config) not in NAMED:
        return list(config.labels)
    if labels := source_of(config).settle(config).labels:
        return list(labels)
    names = cached_table(config, cache_dir, discover=True).label_names
    if config.scheme is not None and not names:
        raise UserError(f"column '{config.columns.label}' has no entity: nothing to learn")
    if not names:
        raise UserError(f"column '{config.columns.label}' has no label: nothing to learn")
    if target_of(config) == "label" and len(names) < 2:
        raise UserError(f"column '{config.columns.label}' has one label only: nothing to learn")
    return list(names)


def training_table(config: DataConfig, cache_dir: Path) -> Table:
    """The rows that the partners of a simulation share: all but the held-out ones.

    Rows whose text is in the config's own test set too are left out: a model that has seen a test
    text is measured as better than it is.
    """
    table = _table(config, cache_dir)
    own = source_of(config).own_test_set(config)
    if own is not None:
        table = table if table.split is None else table.select(table.split != TEST)
        shared = _in_both(table, _table(config, cache_dir, own))
        if len(table) and shared.all():
            raise UserError("the test set has every text: nothing is left to train on")
        return table.select(~shared) if shared.any() else table
    if not _holds_out(config, table):
        return table
    return table.select(hold_out(table, config)[0])


def test_table(config: DataConfig, cache_dir: Path) -> Table | None:
    """The held-out test rows: the config's own test set, else rows held out of the source.

    None where there is neither: ``test_fraction`` is 0, ``test_rows`` is not set and no row's
    split is test; or, at the coordinator of a deployment, no source is named at all.  The rows
    carry no split, so that they can be divided again.
    """
    own = source_of(config).own_test_set(config)
    if own is not None:
        table = _table(config, cache_dir, own)
        _check_coding(config, table, cache_dir)
        return replace(table, split=None)
    if not source_of(config).is_named(config):
        return None
    table = _table(config, cache_dir)
    if not _holds_out(config, table):
        return None
    return replace(table.select(hold_out(table, config)[1]), split=None)


def notes(config: DataConfig, cache_dir: Path) -> list[str]:
    """What somebody should know of the rows that are read: one line each, without a value.

    It names files of a folder or glob that are not read, counts rows that are left out, and names
    labels of the configuration that no row has.
    """
    source = source_of(config)
    if not source.is_named(config):
        return []
    table = _table(config, cache_dir)
    found = source.left_out(config, table.files)
    if target_of(config) == "label":
        counts = np.bincount(table.labels, minlength=len(table.label_names))
        found += [
            f"no row has the label {name}"
            for name, count in zip(table.label_names, counts, strict=True)
            if not count
        ]
    own = source.own_test_set(config)
    if own is not None:
        shared = _in_both(table, _table(config, cache_dir, own)).sum()
        if shared:
            found.append(f"{shared} rows are not trained on: the test set has their texts too")
    return found


def _in_both(table: Table, test: Table) -> NDArray[np.bool_]:
    """Mask of the rows of ``table`` whose text ``test`` has too."""
    return np.isin(table.side_keys, test.side_keys)


def _check_coding(config: DataConfig, test: Table, cache_dir: Path) -> None:
    """Refuse a test set whose labels are written in another way than those trained on."""
    if not config.label_codes or not source_of(config).is_named(config):
        return
    coding = _table(config, cache_dir).coding
    if test.coding != coding:
        raise UserError(
            f"data.label_codes: the test set has the {test.coding} of labels, and the others have "
            f"the {coding}: write all labels in one way"
        )


def _table(config: DataConfig, cache_dir: Path, test: str | None = None) -> Table:
    """The rows of a source that ``config.where`` lets in, de-identified where that is asked."""
    table = cached_table(config, cache_dir, test)
    if config.where:
        chosen = rows_where(table, config.where)
        if not chosen.any():
            raise UserError("data.where: no row has these values")
        table = table.select(chosen)
    if config.deidentify:
        assert config.names_model is not None
        table = deidentified(table, config.names_model, cache_dir)
    return table


def _holds_out(config: DataConfig, table: Table) -> bool:
    marked = table.split is not None and bool(np.any(table.split == TEST))
    return (
        marked
        or bool(config.test_where)
        or config.test_rows is not None
        or config.test_fraction > 0
    )
