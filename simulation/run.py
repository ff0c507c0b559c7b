"""Flower's simulation runtime, in this process, with the apps that are installed.

`flwr run` starts the same runtime through a background SuperLink that stays behind and a new
process per run.  Running it here makes Ctrl-C clean, progress live and the next trial of a sweep
start at once; the apps, the messages and the configuration are the same in both.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event, Timer
from typing import Any

from common.config import Config, to_json
from common.errors import UserError
from common.printable import PrintableFormatter
from server.callbacks import Callback
from server.sampling import sample_size

BUNDLE = """\
[project]
name = "fedaccord-simulation"
version = "1.0.0"
dependencies = []

[tool.flwr.app]
publisher = "fedaccord"

[tool.flwr.app.components]
serverapp = "server.app:app"
clientapp = "client.app:app"

[tool.flwr.app.config]
config = ""
"""
GRACE_SECONDS = 15.0
# Messages hold trainable parameters only; Ray's own default takes a third of the memory.
OBJECT_STORE_BYTES = 512 * 1024 * 1024


def backend_settings(config: Config) -> Any:
    """What Flower's Ray backend is told: all of it, so that Flower adds nothing."""
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
    """`config` for so many partners: with the workers, and their share of GPUs, that it leaves
    open."""
    from common.device import gpu_share, usable_cores

    workers = config.run.workers or min(usable_cores(), partners)
    gpus = config.run.gpus_per_worker or gpu_share(workers)
    run = replace(config.run, partners=partners, workers=workers, gpus_per_worker=gpus)
    return replace(config, run=run)


def start_workers(config: Config) -> None:
    """Begin to start Ray and the workers that `simulate` will use, ahead of it."""
    from simulation import workers as runtime

    runtime.start(backend_settings(config), config.run.workers)


def await_workers(config: Config) -> None:
    """Wait until the workers that `start_workers` has begun to start are there.

    They may still be importing.  Raises UserError when they cannot be had.
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
    """End the workers that an earlier run or `start_workers` has left."""
    from simulation import workers as runtime

    runtime.end()


def simulate(
    config: Config,
    callbacks: Sequence[Callback],
    stop: Event | None = None,
    keep_workers: bool = False,
) -> bool:
    """Run one simulation to its end; True when it finished, False when it was stopped.

    Ctrl-C stops it, and so does whoever sets `stop`.  `config.run` must name its directory, cache,
    workers and number of partners.  No Ray process is left behind, however it ends, unless
    `keep_workers` leaves them to the next run (`end_workers` ends them).

    Raises UserError when the run could not be carried out.
    """
    from flwr.app import Context, RecordDict
    from flwr.simulation.run_simulation import _run_simulation
    from flwr.supercore.constant import NOOP_FEDERATION_ID
    from flwr.supercore.run import Run
    from flwr.supercore.task_identity import TaskIdentity
    from flwr.supercore.telemetry import EventType

    from server.app import make_app
    from server.exchange import Stopped
    from simulation import workers as runtime
    from simulation.seeded_streams import SeededStream

    assert config.run.dir is not None
    _quiet_logs(Path(config.run.dir) / "flower.log")
    run_config: dict[str, bool | float | int | str] = {"config": to_json(config)}
    run = Run.create_empty(run_id=int.from_bytes(os.urandom(7), "big"))
    run.primary_task_id = int.from_bytes(os.urandom(7), "big")
    run.federation_id = NOOP_FEDERATION_ID
    run.override_config = dict(run_config)
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, run.run_id, 1
    context = Context(
        run_id=run.run_id, node_id=0, node_config={}, state=RecordDict(), run_config=run_config
    )
    bundle = Path(tempfile.mkdtemp(prefix="fedaccord-"))
    (bundle / "pyproject.toml").write_text(BUNDLE)
    seeded = partial(SeededStream, config.run.seed, "client-level")
    stop = stop or Event()
    messages = sample_size(config.run.partners, config.run.fraction)
    try:
        with (
            runtime.backend(config.run.workers, messages, keep_workers),
            _interrupt_sets(stop, runtime.end),
        ):
            _run_simulation(
                num_supernodes=config.run.partners,
                exit_event=EventType.PYTHON_API_RUN_SIMULATION_LEAVE,
                client_app_attr="client.app:app",
                server_app=make_app(callbacks, stop, simulated=True, client_level_stream=seeded),
                backend_name="ray",
                backend_config=backend_settings(config),
                server_app_context=context,
                app_dir=str(bundle),
                is_app=True,
                run=run,
            )
    except Stopped:
        return False
    except UserError:
        # A round that ended badly while it was being stopped.
        if stop.is_set():
            return False
        raise
    except RuntimeError as error:
        if stop.is_set():
            return False
        raise UserError(
            f"the simulation runtime failed; see {config.run.dir}/flower.log"
        ) from error
    finally:
        shutil.rmtree(bundle, ignore_errors=True)
    return not stop.is_set()


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
    """Flower's own log goes to a file; the terminal belongs to the progress display."""
    logger = logging.getLogger("flwr")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    file = logging.FileHandler(path)
    file.setFormatter(PrintableFormatter())
    logger.addHandler(file)
    logger.propagate = False
