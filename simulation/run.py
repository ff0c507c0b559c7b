"""A simulation: Flower's simulation runtime in this process, with the apps that are installed.

`flwr run` would start the same runtime in a new process, through a background SuperLink that stays
behind.  Running it here makes Ctrl-C clean, progress live and the next trial of a sweep start at
once.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event, Timer
from typing import Any

from common.config import Config, to_json
from common.errors import UserError
from common.printable import PrintableFormatter
from common.randomness import Stream
from server.callbacks import Callback
from server.sampling import sample_size
from simulation.seeded_streams import SeededStream

GRACE_SECONDS = 15.0
# Messages hold trainable parameters only; Ray's own default takes a third of the memory.
OBJECT_STORE_BYTES = 512 * 1024 * 1024


def backend_settings(config: Config) -> Any:
    """All settings of Flower's Ray backend, so that Flower adds none of its own."""
    return {
        "actor": {"tensorflow": 0},
        "init_args": {
            "num_cpus": config.run.workers,
            "log_to_driver": False,
            "logging_level": "error",
            "object_store_memory": OBJECT_STORE_BYTES,
        },
        "client_resources": {"num_cpus": 1, "num_gpus": config.run.gpus_per_worker},
    }


def with_workers(config: Config, partners: int) -> Config:
    """`config` for `partners`; workers and their share of the GPUs are set where it leaves them."""
    from common.device import gpu_share, usable_cores

    workers = config.run.workers or min(usable_cores(), partners)
    gpus = config.run.gpus_per_worker or gpu_share(workers)
    run = replace(config.run, partners=partners, workers=workers, gpus_per_worker=gpus)
    return replace(config, run=run)


def start_workers(config: Config) -> None:
    """Begin to start Ray and the workers that `simulate` will use, and return at once."""
    from simulation import workers as runtime

    runtime.start(backend_settings(config), config.run.workers)


def await_workers(config: Config) -> None:
    """Wait until the workers that `start_workers` has begun to start exist; they may still import.

    Raises:
        UserError: they cannot be started.
    """
    from simulation import workers as runtime

    try:
        runtime.arrive()
    except Exception as error:
        raise UserError(
            f"the simulation's workers cannot be started (run.workers={config.run.workers}, "
            f"run.gpus_per_worker={config.run.gpus_per_worker:g}): {error}".splitlines()[0]
        ) from error


def end_workers() -> None:
    """End the workers of an earlier run or of `start_workers`."""
    from simulation import workers as runtime

    runtime.end()


def simulate(
    config: Config,
    callbacks: Sequence[Callback],
    stop: Event | None = None,
    keep_workers: bool = False,
) -> bool:
    """Run one simulation to its end.

    Ctrl-C stops it, and so does setting `stop`.  No process of Ray is left behind, however it ends,
    unless `keep_workers` leaves them to the next run (`end_workers` ends them).

    Args:
        config: the run, with its directory, cache, workers and number of partners.
        callbacks: they act on the events of the run.
        stop: ends the run early when it is set.
        keep_workers: keep Ray and its workers for the next run in this process.

    Returns:
        True when the run finished, False when it was stopped.

    Raises:
        UserError: the run could not be carried out.
    """
    from common.flower.simulation import run_simulation
    from server.exchange import Stopped
    from simulation import workers as runtime

    assert config.run.dir is not None
    _quiet_logs(Path(config.run.dir) / "flower.log")
    stop = stop or Event()
    messages = sample_size(config.run.partners, config.run.fraction)
    try:
        with (
            runtime.backend(config.run.workers, messages, keep_workers),
            _interrupt_sets(stop, runtime.end),
        ):
            run_simulation(
                _server_app(config, callbacks, stop),
                runtime.load_app(),
                config.run.partners,
                {"config": to_json(config)},
                backend_settings(config),
            )
    except Stopped:
        return False
    except (UserError, RuntimeError) as error:
        # A round that ended badly while it was being stopped.
        if stop.is_set():
            return False
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"the simulation runtime failed; see {config.run.dir}/flower.log"
        ) from error
    return not stop.is_set()


def _server_app(config: Config, callbacks: Sequence[Callback], stop: Event) -> Any:
    """The coordinator's app with noise that the run's seed repeats."""
    from server.app import make_app

    def client_level_stream(number: int) -> Stream:
        return SeededStream(config.run.seed, "client-level", number)

    return make_app(callbacks, stop, simulated=True, client_level_stream=client_level_stream)


@contextmanager
def _interrupt_sets(stop: Event, force: object) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into `stop`; after a grace period call `force`."""
    timers: list[Timer] = []

    def handle(*_: object) -> None:
        if not stop.is_set():
            stop.set()
            timer = Timer(GRACE_SECONDS, force)  # type: ignore[arg-type]
            timer.daemon = True
            timer.start()
            timers.append(timer)

    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


def _quiet_logs(path: Path) -> None:
    """Write Flower's own log to a file: the terminal belongs to the progress display."""
    logger = logging.getLogger("flwr")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    file = logging.FileHandler(path)
    file.setFormatter(PrintableFormatter())
    logger.addHandler(file)
    logger.propagate = False
