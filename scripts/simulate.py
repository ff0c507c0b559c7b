"""`fedaccord simulate`: a whole federation on this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from common.config import Config, config_hash, malicious
from common.data.sources import source_of
from common.errors import UserError
from scripts.compose import compose_config, expand, load_config, save_config
from scripts.console import PlainConsole

ENVIRONMENT = {
    "FEDACCORD_SIMULATION": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TOKENIZERS_PARALLELISM": "false",
    # glibc keeps freed tensors in per-thread arenas otherwise; read when a worker starts.
    "MALLOC_ARENA_MAX": "2",
}


def default_cache() -> Path:
    """Where tokenised rows and prefix vectors are kept between runs."""
    root = os.environ.get("FEDACCORD_CACHE") or Path.home() / ".cache"
    return Path(root) / "fedaccord"


def configure(overrides: Sequence[str]) -> Config:
    """Compose the run, or read back the one that `run.resume` names."""
    given = [o for o in overrides if o.lstrip("+").startswith("run.resume=")]
    resume = [o.partition("=")[2] for o in given]
    if resume and resume[-1] not in ("", "null"):
        others = [o for o in overrides if o not in given]
        if others:
            raise UserError(
                f"run.resume: a resumed run keeps its configuration; leave out {others[0]}"
            )
        directory = Path(resume[-1]).expanduser().absolute()
        if not directory.is_dir():
            raise UserError(f"run.resume: there is no run directory {resume[-1]}")
        config = load_config(directory / "config.yaml")
        config.run.dir = str(directory)
        return config
    config = compose_config(overrides)
    now = datetime.now()
    return settle(
        config, Path(config.run.dir or Path("outputs") / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}")
    )


def settle(config: Config, directory: Path) -> Config:
    """Give the run its directory and make every path in it absolute."""
    config.run.dir = str(directory.expanduser().absolute())
    config.run.cache_dir = str(
        Path(config.run.cache_dir or default_cache()).expanduser().absolute()
    )
    # Workers have another working directory.
    for key in source_of(config.data).local_paths(config.data):
        if value := getattr(config.data, key):
            setattr(config.data, key, _absolute(value))
    if os.path.isdir(_absolute(config.model.base)):
        config.model.base = _absolute(config.model.base)
    return config


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def check(config: Config) -> None:
    """Refuse what is wrong whatever the data are.

    Raises UserError naming the key.
    """
    from common.data.schema import check_partition
    from server.observers.tracker import check_tracking
    from strategies.attacks.simulate import build_attack
    from strategies.build import build

    check_tracking(config.tracking)
    check_partition(config.partition)
    build_attack(config.attack)
    build(config.strategy)


def complete(config: Config) -> Config:
    """Fill in what only the data knows, and check every partner before the run begins."""
    from client.partner import check_rows, simulated_shares, split_rows
    from common.data.load import resolve_labels
    from server.sampling import sample
    from simulation.run import with_workers
    from strategies.build import build as build_pipeline

    check(config)
    assert config.run.cache_dir is not None
    config.data.labels = resolve_labels(config.data, Path(config.run.cache_dir))
    table, shares = simulated_shares(config)
    names, rows = [share.name for share in shares], []
    for share in shares:
        train, _ = split_rows(table.select(share.indices), config)
        check_rows(share.name, len(train), config)
        rows.append(len(train))
    malicious(config, names)
    pipeline = build_pipeline(config.strategy)
    pipeline.check(len(sample(names, config.run.fraction, config.run.seed, 1)))
    config = with_workers(config, len(shares))

    from client.accounting import calibrate
    from common.model import build as build_model
    from server.testset import check_supplied

    if config.private:
        steps = config.run.rounds * config.train.local_steps
        rate = config.train.batch_size / min(rows)
        calibrate(config.privacy.epsilon, config.privacy.delta, rate, steps)
    build_model(config.model, config.outputs, config.run.seed, config.task)
    check_supplied(pipeline, config, "data.test_fraction or a test set")
    return config


def claim(directory: Path, config: Config) -> None:
    """Make `directory` this run's own and write its configuration there.

    Raises UserError when it cannot be written, or holds something else than this very run.
    """
    path = directory / "config.yaml"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not path.exists() and any(directory.iterdir()):
            raise UserError(f"run.dir: {directory} holds other files; choose a new folder")
        if (directory / "checkpoints").exists() and config_hash(load_config(path)) != config_hash(
            config
        ):
            raise UserError(
                f"run.dir: {directory} holds the checkpoints of another configuration; choose a "
                "new folder, or continue that run with run.resume"
            )
        save_config(config, path)
    except OSError as error:
        raise UserError(f"run.dir: {directory} cannot be used: {error.strerror}") from error


def prepare(config: Config) -> Config:
    """`complete` and `claim`, while workers start and import what they need, which takes seconds.

    When the run turns out to be impossible they wait for the next one, or end with this process:
    who made a mistake is told at once.
    """
    from simulation import run as simulation

    assert config.run.dir is not None
    directory = Path(config.run.dir)
    check(config)
    partners = config.partition.partners
    if partners is not None:
        simulation.start_workers(simulation.with_workers(config, partners))
    config = complete(config)
    claim(directory, config)
    if partners is None:
        simulation.start_workers(config)
    simulation.await_workers(config)
    return config


def main(overrides: Sequence[str], multirun: bool = False, keep_workers: bool = False) -> int:
    """Run a simulation to its end; 0 when it finished, 130 when it was interrupted.

    `keep_workers` leaves the workers to the next run in this process (`simulation.run`).
    """
    os.environ.update(ENVIRONMENT)
    overrides = expand(overrides)
    if multirun:
        from scripts.sweep import sweep

        return sweep(overrides)
    console = PlainConsole()
    config = configure(overrides)
    assert config.run.dir is not None
    directory = Path(config.run.dir)
    if os.path.exists(directory / "results.json"):
        raise UserError(f"{directory}: this run is finished; choose another run.dir")
    config = prepare(config)

    from common.data.load import notes
    from scripts.progress import Terminal
    from simulation.run import simulate

    console.print(f"run directory: {directory}", soft_wrap=True)
    assert config.run.cache_dir is not None
    for note in notes(config.data, Path(config.run.cache_dir)):
        console.print(f"data: {note}", soft_wrap=True)
    with Terminal(console, config.private) as terminal:
        done = simulate(config, [terminal], keep_workers=keep_workers)
    if not done:
        console.print(
            f"stopped; continue with: fedaccord simulate run.resume={directory}",
            soft_wrap=True,
        )
        return 130
    console.print(f"model: {directory / 'model'}", soft_wrap=True)
    console.print(f"report: {directory / 'report.html'}", soft_wrap=True)
    return 0
