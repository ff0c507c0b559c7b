"""A simulated partner: its rows, its streams and its policy follow from the run's configuration."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from client.partner import Partner, split_rows
from client.policy import Policy
from common.config import Config, from_json
from common.data.load import training_table
from common.data.table import Table
from common.files import private_directory
from simulation.attacks.poison import poisoned
from simulation.partition_cache import kept_partition
from simulation.seeded_streams import SeededStreams
from simulation.shares import PartnerShare


def simulated_shares(config: Config) -> tuple[Table, list[PartnerShare]]:
    """The rows that all simulated partners share, and which of them each partner gets.

    Args:
        config: a run whose `run.cache_dir` is set.
    """
    assert config.run.cache_dir is not None
    cache = private_directory(Path(config.run.cache_dir))
    table = training_table(config.data, cache)
    return table, kept_partition(table, config.partition, config.run.seed, cache)


@lru_cache(maxsize=1)
def _shares_of(config_json: str) -> tuple[Table, list[PartnerShare]]:
    return simulated_shares(from_json(config_json))


def simulated(config: Config, config_json: str, index: int) -> Partner:
    """Partner number `index` of the run whose configuration is `config_json`.

    Args:
        config: the same configuration, parsed; `run.dir` and `run.cache_dir` are set.
    """
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
