"""Run a data attack on the rows of a simulated partner before it trains honestly on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from torch import Generator

from common.config import Config, malicious
from common.data.table import Table, Texts
from common.instantiate import instantiate
from common.seeds import torch_generator


class DataAttack(Protocol):
    """Poisons training rows."""

    def poison(
        self, texts: Sequence[str], labels: Sequence[int], generator: Generator
    ) -> tuple[list[str], list[int]]:
        """Texts and labels to train on instead."""


def poisoned(rows: Table, name: str, everyone: Sequence[str], config: Config) -> Table:
    """The rows that partner `name` of a simulation trains on: its own, or poisoned ones.

    Only for simulations: a deployed partner never reads `config.attack`.
    """
    settings: dict[str, Any] = dict(config.attack)
    ours = str(settings.get("_target_")).startswith("simulation.")
    if not ours or name not in malicious(config, everyone):
        return rows
    kept = {k: v for k, v in settings.items() if k not in ("partners", "count")}
    attack: DataAttack = instantiate(kept, "attack", "simulation.attacks.")
    generator = torch_generator(config.run.seed, "poison", name)
    texts, labels = attack.poison(list(rows.texts), rows.labels.tolist(), generator)
    return replace(
        rows,
        texts=Texts(pa.array(texts, type=pa.large_string())),
        labels=np.asarray(labels, dtype=np.int64),
    )
