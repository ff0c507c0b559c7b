"""From the rows of a table to examples that the network reads, whatever the task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from common.config import ModelConfig
from common.data.table import Table
from common.device import Device
from common.examples.batch import Examples
from common.examples.frozen_layers import with_frozen_layers
from common.examples.mlm import prepare_masked
from common.examples.token_classification import prepare_words
from common.examples.tokens import tokenize
from common.models.network import Network


def prepare(
    texts: Sequence[str],
    labels: npt.NDArray[Any],
    network: Network,
    config: ModelConfig,
    device: Device,
    cache: Path,
) -> Examples:
    """Texts for training or evaluation: cached vectors if layers are frozen, else token ids."""
    rows, key = tokenize(texts, labels, network, config, cache)
    if config.prefix_cache and network.frozen_layers > 0:
        return with_frozen_layers(rows, key, network, device, cache)
    return rows


def prepare_table(
    rows: Table, network: Network, config: ModelConfig, device: Device, cache: Path
) -> Examples:
    """The rows of a table for training or evaluation, whatever their targets."""
    if rows.tags is not None:
        return prepare_words(rows, network, config, device, cache)
    if config.head == "lm":
        return prepare_masked(rows, network, config, cache)
    targets = rows.labels if rows.targets is None else rows.targets
    return prepare(rows.texts, targets, network, config, device, cache)
