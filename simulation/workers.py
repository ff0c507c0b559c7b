"""Simulation workers that may outlive a run.

Flower starts Ray and its workers for every run and ends them with it, which costs seconds: a
worker imports torch and transformers.  The trials of a sweep share both, and so do the cells of a
four-way study.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from queue import Queue
from typing import Any

import ray
from flwr.clientapp import ClientApp

from common.files import canonical_json
from common.flower.simulation import BasicActorPool, ClientAppActor, RayBackend, using_backend
from server.exchange import Stopped
from simulation.ray_runtime import end_ray, hosted, start_ray

# A worker is given its next message while it answers one, where a round has at least this many for
# each worker.  With fewer, one worker could be left without any while another has two.
MANY_MESSAGES = 20
# An idle worker answers at once, unless the machine is very busy.
ANSWER_SECONDS = 60.0


class Backend(RayBackend):
    """Flower's Ray backend on a Ray that `start_ray` has started."""

    def init_ray(self, backend_config: dict[str, Any]) -> None:
        """Start Ray, unless it runs already."""
        start_ray(backend_config[self.init_args_key])


@dataclass
class _Kept:
    """Idle workers and the settings that they were started with."""

    settings: str
    pool: BasicActorPool


_kept: _Kept | None = None
_coming: Future[_Kept] | None = None
_starts: Queue[Callable[[], None]] = Queue()


def end() -> None:
    """End the workers and the Ray that this process started."""
    global _kept
    with suppress(Exception):
        arrive()
    _kept = None
    end_ray()


def start(settings: dict[str, Any], workers: int) -> None:
    """Begin to start Ray and `workers` workers, which import the app, and return at once.

    They wait for a run with the same settings.  Workers with these settings that exist already are
    kept.
    """
    global _coming
    if hosted() or _fits(settings):
        return
    end()
    coming: Future[_Kept] = Future()

    def begin() -> None:
        try:
            coming.set_result(
                _Kept(canonical_json(settings), _new_pool(Backend(settings), workers))
            )
        except BaseException as error:
            coming.set_exception(error)

    _coming = coming
    _starter()
    _starts.put(begin)


@cache
def _starter() -> threading.Thread:
    """The one thread that starts Ray, as long as this process lives: Ray's processes end with it.

    It is a daemon, which nobody waits for: a program that ends shuts Ray down while it still lives.
    """

    def serve() -> None:
        while True:
            _starts.get()()

    thread = threading.Thread(target=serve, name="ray", daemon=True)
    thread.start()
    return thread


def arrive() -> None:
    """Wait for what `start` has begun.

    Raises:
        Exception: whatever kept Ray or its workers from starting.
    """
    global _kept, _coming
    if _coming is not None:
        # Whoever interrupts the waiting leaves it to the next caller.
        wait([_coming])
        coming, _coming = _coming, None
        _kept = coming.result()


def _fits(settings: dict[str, Any]) -> bool:
    """Whether there are workers with these settings, all of them alive."""
    with suppress(Exception):
        arrive()
    return _kept is not None and _kept.settings == canonical_json(settings) and _whole(_kept.pool)


def _new_pool(ray_backend: RayBackend, workers: int) -> BasicActorPool:
    # Workers import the app at once, while the server loads its model and its rows, and not when
    # the first message comes.
    early = {**ray_backend.actor_kwargs, "on_actor_init_fn": load_app}
    pool = BasicActorPool(ClientAppActor, ray_backend.client_resources, early)
    # A cluster that others share may hold more than was asked for.
    pool.add_actors_to_pool(min(workers, pool.actors_capacity))
    return pool


def _whole(pool: BasicActorPool) -> bool:
    """Whether every worker is alive and answers: Flower keeps one that has died among the idle."""
    # Every actor has this beside the methods of its class.
    idle: list[Any] = list(pool.pool)
    try:
        ray.get([actor.__ray_ready__.remote() for actor in idle], timeout=ANSWER_SECONDS)
    except ray.exceptions.RayError:
        return False
    return len(idle) == pool.num_actors


def at_once(messages: int, workers: int) -> int:
    """How many of a round's messages a worker is given at once: one, or two where it gets many."""
    return 2 if messages >= MANY_MESSAGES * workers else 1


def load_app() -> ClientApp:
    """The app of simulated partners.

    Each message names this function by its module and name.  Flower's own function would have to
    be sent whole with every message.
    """
    app = import_module("simulation.client_app").app
    assert isinstance(app, ClientApp)
    return app


@contextmanager
def backend(workers: int, messages: int, keep: bool) -> Iterator[None]:
    """Let Flower's simulation runtime use `workers` processes for rounds of so many `messages`.

    With `keep`, a run leaves Ray and the workers to the next one with the same settings
    (the caller then calls `end`).  Otherwise, and after a crash, nothing is left behind.
    """

    class Workers(Backend):
        def __init__(self, settings: dict[str, Any]) -> None:
            self.settings = canonical_json(settings)
            if not _fits(settings):
                end()
            super().__init__(settings)

        def build(self, app_fn: Callable[[], ClientApp]) -> None:
            global _kept
            self.app_fn = load_app
            if _kept is None:
                self.pool = _new_pool(self, workers)
                if keep and not hosted():
                    _kept = _Kept(self.settings, self.pool)
            else:
                self.pool = _kept.pool
            # Flower takes each entry for a worker that answers one message at a time.
            distinct = list(dict.fromkeys(self.pool.pool))
            self.pool.pool[:] = distinct * at_once(messages, len(distinct))
            self.pool.num_actors = len(self.pool.pool)

        def terminate(self) -> None:
            if _kept is None and self.pool is not None:
                self.pool.terminate_all_actors()

    fine = False
    try:
        with using_backend(Workers):
            yield
        fine = True
    except Stopped:
        # The run ended early; the workers are as good as before.
        fine = True
        raise
    finally:
        if not (keep and fine):
            end()
