"""Divided rows of a simulation, kept in a cache."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np

from common.data.schema import PartitionConfig
from common.data.table import Table
from common.files import built_once, canonical_json, sha256_text
from simulation.shares import PartnerShare


def kept_partition(
    table: Table, config: PartitionConfig, seed: int, cache: Path
) -> list[PartnerShare]:
    """What ``simulation.partition.partition`` gives, from ``cache`` where it was divided before.

    The submitter of a simulation and each of its workers need it, and dividing rows among
    thousands of partners takes minutes.
    """
    named = (value for name in sorted(table.groups) for value in (name, *table.groups[name]))
    key = sha256_text(
        *(canonical_json(asdict(config)), str(seed), version("flwr-datasets")),
        *(table.keys.tobytes(), table.labels.tobytes(), "\0".join(map(str, named))),
    )

    def save(folder: Path) -> None:
        # Flower's datasets bring seaborn and more: only who divides pays for that.
        from simulation.partition import partition

        shares = partition(table, config, seed)
        (folder / "names.json").write_text(json.dumps([share.name for share in shares]))
        np.save(folder / "ends.npy", np.cumsum([len(share.indices) for share in shares]))
        np.save(folder / "indices.npy", np.concatenate([share.indices for share in shares]))

    folder = built_once(cache / f"shares-{key[:32]}", save)
    names: list[str] = json.loads((folder / "names.json").read_text())
    indices = np.load(folder / "indices.npy")
    parts = np.split(indices, np.load(folder / "ends.npy")[:-1])
    return [PartnerShare(name, part) for name, part in zip(names, parts, strict=True)]
