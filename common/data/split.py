"""Dividing records: a partner's training and validation rows, a simulation's held-out rows.

A record's place depends on the seed and on the record's own text (or its split column) alone.
Two things follow.  Copies of one text are never on both sides.  And adding or removing one record
changes one side by that record and leaves the other as it is, which is what parallel composition
of differential privacy needs: a split of exact size would push some other record across.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.data.schema import DataConfig
from common.data.table import TEST, TRAIN, VALIDATION, Table
from common.errors import UserError

# Of the rule that draws sides: a change of it makes another division (see client/division.py).
SPLIT_VERSION = 2
HELD_OUT_SEED = 0x7E57  # fixed, so that results of runs with different seeds are comparable


def uniforms(keys: NDArray[np.uint64], seed: int) -> NDArray[np.float64]:
    """One number in [0, 1) for each key: the finaliser of SplitMix64 over key and seed.

    Reference: Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014.
    """
    mixed = _mix(keys ^ _mix(np.array([seed % 2**64], dtype=np.uint64)))
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


@dataclass(frozen=True, eq=False)
class Split:
    """Disjoint positions in a table, ascending.  Test rows are in neither."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]


def split_partner(table: Table, validation_fraction: float, seed: int) -> Split:
    """Training and validation rows of one partner's table.

    With a split column its values decide.  Without, each text falls
    to validation with probability ``validation_fraction``, so the size is random (binomial) and
    may be 0 for a table of few rows.
    """
    if table.split is not None:
        return Split(
            train=np.flatnonzero(table.split == TRAIN),
            validation=np.flatnonzero(table.split == VALIDATION),
        )
    chosen = uniforms(table.side_keys, seed) < validation_fraction
    return Split(train=np.flatnonzero(~chosen), validation=np.flatnonzero(chosen))


def hold_out(table: Table, config: DataConfig) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of the rows for the partners, and of the held-out test rows, of a simulation.

    The split column decides if it has test rows; else ``config.test_where`` does; else
    ``config.test_rows`` texts (of each value
    of ``config.test_by``), else ``config.test_fraction`` of them.  The choice does not depend on
    the run's seed, and no text is on both sides.
    """
    if table.split is not None and bool(np.any(table.split == TEST)):
        is_test = table.split == TEST
        return np.flatnonzero(~is_test), np.flatnonzero(is_test)
    chance = uniforms(table.side_keys, HELD_OUT_SEED)
    if config.test_where:
        is_test = rows_where(table, config.test_where)
        if not is_test.any():
            raise UserError("data.test_where: no row has these values")
    elif config.test_rows is None:
        is_test = chance < config.test_fraction
    else:
        is_test = _first(chance, config.test_rows, _strata(table, config.test_by))
    shared = np.isin(table.side_keys, table.side_keys[is_test])
    return np.flatnonzero(~shared), np.flatnonzero(is_test)


def rows_where(table: Table, where: Mapping[str, str]) -> NDArray[np.bool_]:
    """Mask of the rows whose group columns have all the given values."""
    chosen = np.ones(len(table), dtype=np.bool_)
    for column, value in where.items():
        chosen &= table.groups[column] == value
    return chosen


def _strata(table: Table, by: str | None) -> NDArray[np.int64]:
    """The stratum (0, 1, …) of each row."""
    if by is None:
        return np.zeros(len(table), dtype=np.int64)
    if by not in table.groups:
        raise UserError(f"data.test_by={by} is not one of data.columns.groups")
    return np.unique(table.groups[by].astype(str), return_inverse=True)[1]


def _first(chance: NDArray[np.float64], rows: int, strata: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mask of the ``rows`` rows of smallest chance in each stratum."""
    chosen = np.zeros(len(chance), dtype=np.bool_)
    for stratum in range(int(strata.max(initial=-1)) + 1):
        members = np.flatnonzero(strata == stratum)
        if len(members) <= rows:
            what = f"data.test_rows={rows} leaves nothing to train on"
            raise UserError(f"{what}: there are {len(members)} rows to take them from")
        order = np.argsort(chance[members], kind="stable")
        chosen[members[order[:rows]]] = True
    return chosen


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
