"""Flower's simulation runtime: partners in worker processes of a Ray on this machine."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from threading import Event
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.server.superlink.fleet.vce import vce_api
from flwr.server.superlink.fleet.vce.backend import raybackend
from flwr.server.superlink.fleet.vce.backend.raybackend import RayBackend
from flwr.server.superlink.linkstate.in_memory_linkstate import InMemoryLinkState
from flwr.serverapp import ServerApp
from flwr.simulation.ray_transport.ray_actor import BasicActorPool, ClientAppActor
from flwr.simulation.run_simulation import _run_simulation
from flwr.supercore.constant import NOOP_FEDERATION_ID
from flwr.supercore.date import now
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.supercore.telemetry import EventType

from common.flower.substitution import substitute

__all__ = ["BasicActorPool", "ClientAppActor", "RayBackend", "run_simulation", "using_backend"]

POLL_SECONDS = 0.02
# Flower reads a run's settings from the folder of an app.  It holds no code: both apps are objects
# of this process.
_BUNDLE = """\
[project]
name = "fedaccord-simulation"
version = "1.0.0"
dependencies = []

[tool.flwr.app]
publisher = "fedaccord"

[tool.flwr.app.components]
serverapp = "server.app:app"
clientapp = "simulation.client_app:app"

[tool.flwr.app.config]
"""


def run_simulation(
    server_app: ServerApp,
    client_app: ClientApp,
    partners: int,
    run_config: Mapping[str, str],
    backend_settings: dict[str, Any],
) -> None:
    """Run both apps until the server's app returns.

    Args:
        partners: how many instances of `client_app` there are.
        run_config: what both apps find in their contexts.
        backend_settings: those of Flower's Ray backend.

    Raises:
        RuntimeError: the runtime failed.
        Exception: whatever the server's app has raised.
    """
    settings: dict[str, bool | float | int | str] = {**run_config}
    run = Run.create_empty(run_id=int.from_bytes(os.urandom(7), "big"))
    run.primary_task_id = int.from_bytes(os.urandom(7), "big")
    run.federation_id = NOOP_FEDERATION_ID
    run.override_config = dict(settings)
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, run.run_id, 1
    bundle = Path(tempfile.mkdtemp(prefix="fedaccord-"))
    defaults = "".join(f'{name} = ""\n' for name in run_config)
    (bundle / "pyproject.toml").write_text(_BUNDLE + defaults)
    try:
        # With a loaded app Flower imports nothing, and leaves the bundle's folder off `sys.path`.
        _run_simulation(
            num_supernodes=partners,
            exit_event=EventType.PYTHON_API_RUN_SIMULATION_LEAVE,
            client_app=client_app,
            server_app=server_app,
            backend_name="ray",
            backend_config=backend_settings,
            server_app_context=Context(run.run_id, 0, {}, RecordDict(), settings),
            app_dir=str(bundle),
            is_app=True,
            run=run,
        )
    finally:
        shutil.rmtree(bundle, ignore_errors=True)


@contextmanager
def using_backend(backend: Callable[[dict[str, Any]], RayBackend]) -> Iterator[None]:
    """Let the runtime use `backend` in the place of its own, and `hand_out` beside it."""
    theirs = raybackend.RayBackend, vce_api.add_messages_to_queue
    # Flower looks both up whenever a run begins.
    substitute(raybackend, "RayBackend", backend)
    substitute(vce_api, "add_messages_to_queue", hand_out)
    try:
        yield
    finally:
        substitute(raybackend, "RayBackend", theirs[0])
        substitute(vce_api, "add_messages_to_queue", theirs[1])


def hand_out(
    state: InMemoryLinkState, queue: Queue[Message], _: Mapping[int, int], stop: Event
) -> None:
    """Put every message that has not been delivered into `queue`, until `stop` is set.

    Flower's own function looks through all messages once for every node, a hundred million steps
    where ten thousand partners are asked, and then sleeps for a tenth of a second.
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
