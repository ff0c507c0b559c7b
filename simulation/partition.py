"""Simulated partners: which rows of one table belong to whom, through flwr-datasets."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import warnings
from collections import Counter

import datasets
import numpy as np
from flwr_datasets.partitioner import (
    DirichletPartitioner,
    ExponentialPartitioner,
    IidPartitioner,
    InnerDirichletPartitioner,
    LinearPartitioner,
    NaturalIdPartitioner,
    Partitioner,
    SizePartitioner,
    SquarePartitioner,
)
from numpy.typing import NDArray

from common.data.normal import normal_form
from common.data.schema import Block, PartitionConfig, check_partition
from common.data.table import Table
from common.errors import UserError
from simulation.shares import PartnerShare


def partition(table: Table, config: PartitionConfig, seed: int) -> list[PartnerShare]:
    """Divide rows of ``table`` among simulated partners; no row goes to two of them.

    Blocks are served in the config's order, each from the rows that no earlier block took.  The
    same table, config and seed give the same shares.  Raises UserError for a block without rows,
    for a partner with less than ``config.min_rows``, and for a name that appears twice.
    """
    check_partition(config)
    free = np.ones(len(table), dtype=np.bool_)
    shares: list[PartnerShare] = []
    for name, block in config.blocks.items():
        pool = np.flatnonzero(free & _where(table, name, block))
        if not len(pool):
            raise UserError(f"partition.blocks.{name}: no rows are left for it")
        for share in _divide(table, pool, name, block, _generator(seed, name), config.min_rows):
            if len(share.indices) < config.min_rows:
                rows = f"{len(share.indices)} rows, less than partition.min_rows={config.min_rows}"
                raise UserError(f"partner {share.name} has {rows}")
            free[share.indices] = False
            shares.append(share)
    names = Counter(share.name.lower() for share in shares)  # file systems may ignore case
    for share in shares:
        if names[share.name.lower()] > 1:
            raise UserError(f"two partners are called {share.name}: rename a block")
    return shares


def _divide(
    table: Table,
    pool: NDArray[np.int64],
    name: str,
    block: Block,
    generator: np.random.Generator,
    min_rows: int,
) -> list[PartnerShare]:
    """The shares of one block out of the rows ``pool``."""
    if sum(block.sizes) > len(pool):
        problem = f"sizes add up to {sum(block.sizes)}, but there are {len(pool)} rows"
        raise UserError(f"partition.blocks.{name}: {problem}")
    pool = generator.permutation(pool)
    if block.sizes and block.kind == "iid":
        pool = pool[: sum(block.sizes)]
    columns: dict[str, object] = {
        "position": pool,
        "label": np.unique(table.labels[pool], return_inverse=True)[1],
    }
    if block.kind == "natural":
        columns["by"] = _natural_ids(table, pool, name, str(block.by))
    partitioner = _partitioner(block, int(generator.integers(2**31)), min_rows)
    partitioner.dataset = datasets.Dataset.from_dict(columns)
    try:
        # Both the warnings (of rows left over) and the bar of the natural partitioner are noise.
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            parts = [
                np.sort(np.asarray(partitioner.load_partition(index)["position"], dtype=np.int64))
                for index in range(partitioner.num_partitions)
            ]
    except (ValueError, IndexError):
        count = block.partners or len(block.sizes)
        problem = f"{len(pool)} rows cannot be divided in this way among {count} partners"
        advice = "use fewer partners, less skew or a smaller partition.min_rows"
        raise UserError(f"partition.blocks.{name}: {problem}: {advice}") from None
    if isinstance(partitioner, NaturalIdPartitioner):
        ids = partitioner.partition_id_to_natural_id
        names = _safe_names([ids[index] for index in range(len(parts))])
    else:
        names = [f"{_safe(name)}-{number}" for number in range(1, len(parts) + 1)]
    return [PartnerShare(n, part) for n, part in zip(names, parts, strict=True)]


def _partitioner(block: Block, seed: int, min_rows: int) -> Partitioner:
    if block.kind == "natural":
        return NaturalIdPartitioner(partition_by="by")
    if block.kind == "dirichlet" and block.sizes:
        return InnerDirichletPartitioner(
            partition_sizes=list(block.sizes), partition_by="label", alpha=block.alpha, seed=seed
        )
    if block.sizes:
        return SizePartitioner(list(block.sizes))
    partners = block.partners or 0
    if block.kind == "dirichlet":
        return DirichletPartitioner(
            num_partitions=partners,
            partition_by="label",
            alpha=block.alpha,
            min_partition_size=min_rows,
            seed=seed,
        )
    by_kind = {
        "iid": IidPartitioner,
        "linear": LinearPartitioner,
        "square": SquarePartitioner,
        "exponential": ExponentialPartitioner,
    }
    return by_kind[block.kind](num_partitions=partners)


def _where(table: Table, name: str, block: Block) -> NDArray[np.bool_]:
    """Mask of the rows that a block may take."""
    mask = np.ones(len(table), dtype=np.bool_)
    for column, value in block.where.items():
        mask &= _group(table, f"partition.blocks.{name}.where", column) == value
    return mask


def _natural_ids(table: Table, pool: NDArray[np.int64], name: str, by: str) -> list[str]:
    values = _group(table, f"partition.blocks.{name}.by", by)[pool]
    missing = np.flatnonzero(values == "")
    if len(missing):
        place = table.place(int(pool[missing].min()))
        raise UserError(f"{place}, column '{by}': no value to divide by")
    folded: dict[str, str] = {}
    for position, value in zip(pool.tolist(), values.tolist(), strict=True):
        twin = folded.setdefault(normal_form(value, fold_case=True), value)
        if twin != value:
            raise UserError(
                f"{table.place(position)}, column '{by}': the value differs from another in case "
                "alone, and both would be partners: set data.fold_case=true, or correct one"
            )
    return [str(value) for value in values]


def _group(table: Table, key: str, column: str) -> NDArray[np.object_]:
    if column not in table.groups:
        have = ", ".join(table.groups) or "none"
        raise UserError(f"{key}: '{column}' is not one of data.columns.groups ({have})")
    return table.groups[column]


def _generator(seed: int, name: str) -> np.random.Generator:
    """A stream for each block, so that a new block does not disturb the others."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return np.random.default_rng([seed, int.from_bytes(digest, "big")])


def _safe(value: str) -> str:
    """``value`` with letters, digits, dot, dash and underscore only, at most 60 characters."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", value).strip("-.")[:60] or "partner"


def _safe_names(values: list[str]) -> list[str]:
    """Safe names; those that would be equal get a hash of the value, whatever their order."""
    names = [_safe(value) for value in values]
    lowered = Counter(name.lower() for name in names)
    return [
        name
        if lowered[name.lower()] == 1
        else f"{name}-{hashlib.sha256(value.encode()).hexdigest()[:8]}"
        for name, value in zip(names, values, strict=True)
    ]
