"""The server's own public rows: a held-out test set and a disjoint validation set.

Decisions (such as an appeal) use the validation rows, and the reported figures use the test rows,
so that no decision is tuned on what is reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from common.config import Config
from common.data.load import test_table
from common.data.split import HELD_OUT_SEED, split_partner
from common.data.table import Table
from common.device import Device, pick_device
from common.errors import UserError
from common.evaluation import Evaluation, evaluate
from common.examples.batch import Examples
from common.examples.prepare import prepare_table
from common.models.network import Network
from strategies.fair.fairfed import FairFed
from strategies.pipeline import Pipeline

VALIDATION_FRACTION = 0.2


def public_rows(config: Config) -> tuple[Table, Table] | None:
    """The server's test rows and validation rows, or None when it has none."""
    assert config.run.cache_dir is not None
    table = test_table(config.data, Path(config.run.cache_dir))
    if table is None:
        return None
    parts = split_partner(table, VALIDATION_FRACTION, HELD_OUT_SEED + 1)
    return table.select(parts.train), table.select(parts.validation)


def check_supplied(pipeline: Pipeline, config: Config, remedy: str) -> None:
    """Check that a run has the data that its strategy reads.

    Args:
        pipeline: the strategy.
        config: the run.
        remedy: the keys that give the server public rows, for the message.

    Raises:
        UserError: group columns or public rows are missing.
    """
    if isinstance(pipeline.fair, FairFed) and not config.data.columns.groups:
        raise UserError("strategy.fair: needs groups to compare; name them in data.columns.groups")
    readers = {"appeal": pipeline.appeal is not None, "robust": pipeline.needs_reference}
    for stage in (name for name, reads in readers.items() if reads):
        assert config.run.cache_dir is not None
        if test_table(config.data, Path(config.run.cache_dir)) is None:
            raise UserError(f"strategy.{stage}: needs public rows of the server ({remedy})")


@dataclass(frozen=True)
class TestSet:
    """Prepared rows and the device they are evaluated on."""

    test: Examples
    groups: dict[str, np.ndarray]
    validation: Examples
    device: Device

    @classmethod
    def load(cls, config: Config, network: Network) -> TestSet | None:
        """The configured test set, or None when the coordinator has none."""
        found = public_rows(config)
        if found is None:
            return None
        held_out, validation = found
        assert config.run.cache_dir is not None
        cache = Path(config.run.cache_dir)
        device = pick_device(config.model.precision, config.model.compile)
        for part in (network.embeddings, network.shared, network.frozen, network.trained):
            part.to(device.device)

        def examples(rows: Table) -> Examples:
            return prepare_table(rows, network, config.model, device, cache)

        groups = {name: np.asarray(v, dtype=str) for name, v in held_out.groups.items()}
        return cls(examples(held_out), groups, examples(validation), device)

    def evaluate(self, network: Network, parameters: dict[str, Tensor]) -> Evaluation:
        """Counts and loss of `parameters` on the test rows."""
        network.write(parameters)
        return evaluate(network, self.test, self.groups, self.device)

    def validation_loss(self, network: Network, parameters: dict[str, Tensor]) -> float:
        """Bounded mean loss of `parameters` on the validation rows."""
        network.write(parameters)
        return evaluate(network, self.validation, {}, self.device).loss
