"""One partner: its name, its rows, its ledger, its policy.

In simulation all of it follows from the run's configuration and a partition number.  In deployment
it comes from the partner's own machine, and the configuration is only a request.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from client.accounting import check_delta
from client.policy import Policy
from common.config import Config, from_json
from common.data.load import training_table
from common.data.split import split_partner
from common.data.table import Table
from common.errors import UserError
from common.files import private_directory
from common.randomness import Streams, system_streams
from common.refusals import Reason, Refused
from simulation.attacks.poison import poisoned
from simulation.partition_cache import kept_partition
from simulation.shares import PartnerShare

# Set by `fedaccord simulate` for its own workers.  Without it a partner never takes its rows from
# a coordinator's configuration and never seeds its noise.
SIMULATION_VARIABLE = "FEDACCORD_SIMULATION"


@dataclass(frozen=True)
class Partner:
    """`seed` is set in simulation only, where `streams` repeat themselves; a deployed partner's
    batches and noise come from the operating system."""

    name: str
    train: Table
    validation: Table
    directory: Path
    cache: Path
    policy: Policy
    seed: int | None
    streams: Streams = system_streams

    @property
    def ledger(self) -> Path:
        """Where the privacy ledger of this partner's data set lies."""
        return self.directory / "ledger.sqlite"


def simulated_shares(config: Config) -> tuple[Table, list[PartnerShare]]:
    """The rows that simulated partners share, and who gets which of them."""
    assert config.run.cache_dir is not None
    cache = private_directory(Path(config.run.cache_dir))
    table = training_table(config.data, cache)
    return table, kept_partition(table, config.partition, config.run.seed, cache)


@lru_cache(maxsize=1)
def _shares_of(config_json: str) -> tuple[Table, list[PartnerShare]]:
    return simulated_shares(from_json(config_json))


def simulated(config: Config, config_json: str, index: int) -> Partner:
    """Partner number `index` of a simulation."""
    # Only here: a deployed process must have no source of noise that repeats itself.
    from simulation.seeded_streams import SeededStreams

    table, shares = _shares_of(config_json)
    share = shares[index]
    assert config.run.dir is not None
    assert config.run.cache_dir is not None
    train, validation = split_rows(table.select(share.indices), config)
    train = poisoned(train, share.name, [s.name for s in shares], config)
    return Partner(
        name=share.name,
        train=train,
        validation=validation,
        directory=private_directory(Path(config.run.dir) / "partners" / share.name),
        cache=private_directory(Path(config.run.cache_dir)),
        # One run alone may use half of a lifetime's delta (client/lifetime.py).
        policy=Policy.permissive(
            max(config.privacy.epsilon, config.metrics_epsilon), 2 * config.privacy.delta
        ),
        seed=config.run.seed,
        streams=SeededStreams(config.run.seed, share.name),
    )


def split_rows(rows: Table, config: Config) -> tuple[Table, Table]:
    """A partner's training and validation rows: disjoint, so that their privacy costs do not add
    up (parallel composition)."""
    parts = split_partner(rows, config.data.validation_fraction, config.run.seed)
    return rows.select(parts.train), rows.select(parts.validation)


def check_rows(name: str, rows: float, config: Config) -> None:
    """Refuse what cannot be trained privately, before anything is trained.

    The true number is named in the error only where metrics are exact; else `rows` is noisy.

    Raises UserError when a batch is larger than the data set or delta is not below 1/N.
    """
    if rows < config.train.batch_size:
        how_many = "too few" if config.private_metrics else f"{rows:.0f}"
        raise Refused(
            Reason.TOO_FEW_ROWS,
            f"partner {name}: has {how_many} training rows, fewer than train.batch_size="
            f"{config.train.batch_size}; lower train.batch_size or give it more rows",
            "train.batch_size",
        )
    if config.private:
        try:
            check_delta(config.privacy.delta, math.ceil(rows))
        except UserError as error:
            raise Refused(
                Reason.TOO_FEW_ROWS, f"partner {name}: {error}", "privacy.delta"
            ) from error


def in_simulation() -> bool:
    """Whether this process was started by `fedaccord simulate`."""
    return os.environ.get(SIMULATION_VARIABLE) == "1"


def group_values(table: Table) -> dict[str, np.ndarray]:
    """The group columns of a table, [n] of str each."""
    return {name: np.asarray(values, dtype=str) for name, values in table.groups.items()}
