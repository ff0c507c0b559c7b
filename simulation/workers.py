"""Flower's Ray backend with workers that may outlive a run, and the Ray that they live in.

Flower starts Ray and its workers for every run and ends them with it, which costs seconds: a
worker imports torch and transformers.  The trials of a sweep share both, and so do the cells of a
four-way study.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from queue import Queue
from threading import Event
from typing import Any

import ray
from flwr.app import Message
from flwr.clientapp import ClientApp
from flwr.server.superlink.fleet.vce import vce_api
from flwr.server.superlink.fleet.vce.backend import raybackend
from flwr.server.superlink.fleet.vce.backend.raybackend import RayBackend
from flwr.server.superlink.fleet.vce.vce_api import add_messages_to_queue
from flwr.server.superlink.linkstate.in_memory_linkstate import InMemoryLinkState
from flwr.simulation.ray_transport.ray_actor import BasicActorPool, ClientAppActor
from flwr.supercore.date import now

from common.files import canonical_json
from common.worker import substitute
from server.exchange import Stopped

POLL_SECONDS = 0.02
# A worker is given its next message while it answers one, where a round has at least this many for
# each worker.  With fewer, one worker could be left without any while another has two.
MANY_MESSAGES = 20
# An idle worker answers at once, unless the machine is very busy.
ANSWER_SECONDS = 60.0


@dataclass
class _Kept:
    """Idle workers and the settings that they were started with."""

    settings: str
    pool: BasicActorPool


_kept: _Kept | None = None
_coming: Future[_Kept] | None = None
_starts: Queue[Callable[[], None]] = Queue()


def hosted() -> bool:
    """Whether this process is itself a worker of a Ray that somebody else started and ends."""
    return bool(ray.is_initialized()) and ray.get_runtime_context().worker.mode == ray.WORKER_MODE


def end() -> None:
    """End the workers and the Ray that this process started."""
    global _kept
    with suppress(Exception):
        arrive()
    _kept = None
    if ray.is_initialized() and not hosted():
        ray.shutdown()


def start(settings: dict[str, Any], workers: int) -> None:
    """Begin to start Ray and `workers` workers, which import the app, while the caller goes on.

    They wait for a run with the same settings; workers of such a run that are there already stay.
    """
    global _coming
    if hosted() or _fits(settings):
        return
    end()
    coming: Future[_Kept] = Future()

    def begin() -> None:
        try:
            coming.set_result(
                _Kept(canonical_json(settings), _new_pool(RayBackend(settings), workers))
            )
        except BaseException as error:
            coming.set_exception(error)

    _coming = coming
    _starter()
    _starts.put(begin)


@cache
def _starter() -> threading.Thread:
    """The thread on which Ray is started, for good: Ray's processes end with it.

    A daemon, which nobody waits for: a program that ends shuts Ray down while it still lives.
    """

    def serve() -> None:
        while True:
            _starts.get()()

    thread = threading.Thread(target=serve, name="ray", daemon=True)
    thread.start()
    return thread


def arrive() -> None:
    """Wait for what `start` has begun.

    Raises whatever kept Ray or its workers from starting.
    """
    global _kept, _coming
    if _coming is not None:
        # Whoever interrupts the waiting leaves it to the next one.
        wait([_coming])
        coming, _coming = _coming, None
        _kept = coming.result()


def _fits(settings: dict[str, Any]) -> bool:
    """Whether whole workers of these settings are there."""
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
    """Whether every worker is there and answers: Flower keeps one that has died among the idle."""
    # Every actor has this beside the methods of its class.
    idle: list[Any] = list(pool.pool)
    try:
        ray.get([actor.__ray_ready__.remote() for actor in idle], timeout=ANSWER_SECONDS)
    except ray.exceptions.RayError:
        return False
    return len(idle) == pool.num_actors


def at_once(messages: int, workers: int) -> int:
    """How many of a round's messages a worker is given at once: one, and the next of many."""
    return 2 if messages >= MANY_MESSAGES * workers else 1


def load_app() -> ClientApp:
    """The partner's app; a worker is told this name, not Flower's function, which it would have to
    be sent whole with every message."""
    app = import_module("client.app").app
    assert isinstance(app, ClientApp)
    return app


def hand_out(
    state: InMemoryLinkState, queue: Queue[Message], _: Mapping[int, int], stop: Event
) -> None:
    """Put every message that has not been delivered into `queue`, until `stop`.

    Flower's own looks through all messages once for every node, a hundred million steps where ten
    thousand partners are asked, and then sleeps for a tenth of a second.
    """
    handed: set[str] = set()
    while not stop.is_set():
        with state.lock:
            stored = state.message_ins_store
            handed &= stored.keys()
            fresh = [identity for identity in stored if identity not in handed]
            # Removes those that have expired.
            state._check_stored_messages(set(fresh))
            for message in (stored.get(identity) for identity in fresh):
                if message is not None and message.metadata.delivered_at == "":
                    message.metadata.delivered_at = now().isoformat()
                    queue.put(message)
            handed.update(fresh)
        stop.wait(POLL_SECONDS)


@contextmanager
def _own_signals() -> Iterator[None]:
    """Put back who answers SIGTERM: Ray's start takes it, and would end the process with code 0."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def backend(workers: int, messages: int, keep: bool) -> Iterator[None]:
    """Let Flower's simulation runtime use `workers` processes for rounds of so many `messages`.

    With `keep`, a run leaves Ray and the workers to the next one with the same settings
    (`end` is then the caller's to call); otherwise, and after a crash, nothing is left behind.
    """

    class Workers(RayBackend):
        def __init__(self, settings: dict[str, Any]) -> None:
            self.settings = canonical_json(settings)
            if not _fits(settings):
                end()
            with _own_signals():
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

    # Flower looks both up whenever a run begins.
    substitute(raybackend, "RayBackend", Workers)
    substitute(vce_api, "add_messages_to_queue", hand_out)
    fine = False
    try:
        yield
        fine = True
    except Stopped:
        # The run ended early; the workers are as good as before.
        fine = True
        raise
    finally:
        substitute(raybackend, "RayBackend", RayBackend)
        substitute(vce_api, "add_messages_to_queue", add_messages_to_queue)
        if not (keep and fine):
            end()
