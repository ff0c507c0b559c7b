"""A simulation before its first round: checks, and everything that depends on the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from common.config import Config, malicious
from results.run_directory import claim

# Set before anything of Flower or Ray is imported: both read some of it on import.
ENVIRONMENT = {
    "FEDACCORD_SIMULATION": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TOKENIZERS_PARALLELISM": "false",
    # Otherwise glibc keeps freed tensors in per-thread arenas; workers read it when they start.
    "MALLOC_ARENA_MAX": "2",
    # Processes that are started from here import nothing from the current folder.
    "PYTHONSAFEPATH": "1",
}


def check(config: Config) -> None:
    """Check what does not depend on the data.

    Args:
        config: A composed configuration.

    Raises:
        UserError: A setting is wrong; the message names its key.
    """
    from common.data.schema import check_partition
    from server.callbacks.tracker import check_tracking
    from strategies.attacks.simulate import build_attack
    from strategies.build import build

    check_tracking(config.tracking)
    check_partition(config.partition)
    build_attack(config.attack)
    build(config.strategy)


def complete(config: Config) -> Config:
    """Fill in what the data determine (labels, partners, workers), and check every partner.

    Args:
        config: A configuration with absolute paths (`results.run_directory.settle`).

    Raises:
        UserError: A setting does not fit the data; the message names key or partner.
    """
    from client.partner import check_rows, split_rows
    from common.data.load import resolve_labels
    from simulation.partner import simulated_shares
    from simulation.run import with_workers

    check(config)
    assert config.run.cache_dir is not None
    labels = resolve_labels(config.data, Path(config.run.cache_dir))
    config = replace(config, data=replace(config.data, labels=labels))
    table, shares = simulated_shares(config)
    names, rows = [share.name for share in shares], []
    for share in shares:
        train, _ = split_rows(table.select(share.indices), config)
        check_rows(share.name, len(train), config)
        rows.append(len(train))
    malicious(config, names)
    config = with_workers(config, len(shares))
    _check_round(config, names, rows)
    return config


def _check_round(config: Config, names: Sequence[str], rows: Sequence[int]) -> None:
    """Check pipeline, noise and model against the partners and their training rows."""
    from client.accounting import calibrate
    from common.models.build import build as build_model
    from server.sampling import sample
    from server.testset import check_supplied
    from strategies.build import build as build_pipeline

    pipeline = build_pipeline(config.strategy)
    pipeline.check(len(sample(names, config.run.fraction, config.run.seed, 1)))
    if config.private:
        steps = config.run.rounds * config.train.local_steps
        rate = config.train.batch_size / min(rows)
        calibrate(config.privacy.epsilon, config.privacy.delta, rate, steps)
    build_model(config.model, config.outputs, config.run.seed, config.task)
    check_supplied(pipeline, config, "data.test_fraction or a test set")


def prepare(config: Config) -> Config:
    """`complete` the configuration and `claim` its directory while workers start.

    Starting workers and their imports takes seconds. If the run turns out to be impossible, the
    workers wait for the next run of this process, or end with it.

    Args:
        config: A configuration with absolute paths.

    Returns:
        The whole configuration.

    Raises:
        UserError: The run is impossible.
    """
    from simulation import run as simulation

    assert config.run.dir is not None
    check(config)
    partners = config.partition.partners
    if partners is not None:
        simulation.start_workers(simulation.with_workers(config, partners))
    config = complete(config)
    assert config.run.dir is not None
    claim(Path(config.run.dir), config)
    if partners is None:
        simulation.start_workers(config)
    simulation.await_workers(config)
    return config
