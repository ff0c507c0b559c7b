"""What the coordinator asks its own SuperLink: who is registered, which runs there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from common.bundle import CONFIG_KEY, build_bundle
from common.errors import UserError
from common.flower.control import (
    ControlHttpClient,
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StopRunRequest,
    UnregisterNodeRequest,
    control_client,
    public_key_to_bytes,
    start_request,
)

# How many runs are looked through for such as never ended.
LOOKED_BACK = 1000


@dataclass(frozen=True)
class Node:
    """A registered partner."""

    id: int
    name: str
    online: bool
    key: bytes


@dataclass(frozen=True)
class RunState:
    """Where a submitted run stands: `status` pending, starting, running or finished.

    `began` is the moment since which it runs, None when it does not yet.
    """

    id: int
    status: str
    outcome: str
    details: str
    began: datetime | None

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.status == "finished"


class Control:
    """A connection to the inner door of this machine's SuperLink."""

    def __init__(self, client: ControlHttpClient) -> None:
        self.client = client

    def nodes(self) -> list[Node]:
        """Every registered partner, by name."""
        answer = self.client.ListNodes(ListNodesRequest())
        found = [
            Node(n.node_id, n.name, n.status == "online", n.public_key)
            for n in answer.nodes_info
            if n.status != "unregistered"
        ]
        return sorted(found, key=lambda node: node.name)

    def register(self, keys: Mapping[str, bytes]) -> list[str]:
        """Make the registered keys those of `keys` (by partner); returns what was changed."""
        changes = []
        nodes = self.nodes()
        for node in nodes:
            if keys.get(node.name) != node.key:
                self.client.UnregisterNode(UnregisterNodeRequest(node_id=node.id))
                changes.append(f"{node.name}: key no longer accepted")
        known = {node.name for node in nodes if keys.get(node.name) == node.key}
        for name in sorted(set(keys) - known):
            self.client.RegisterNode(RegisterNodeRequest(public_key=keys[name], name=name))
            changes.append(f"{name}: key accepted")
        return changes

    def submit(self, config: str) -> int:
        """Start a run with the resolved configuration; returns its number at the SuperLink."""
        answer = self.client.StartRun(start_request(build_bundle(), {CONFIG_KEY: config}))
        if not answer.run_id:
            raise UserError("the server did not start the run; see its log")
        return int(answer.run_id)

    def run(self, number: int) -> RunState:
        """Where one run stands."""
        answer = self.client.ListRuns(ListRunsRequest(run_id=number))
        return _state(answer.run_dict[number])

    def runs(self, limit: int = 10) -> list[RunState]:
        """The latest runs, newest first."""
        answer = self.client.ListRuns(ListRunsRequest(limit=limit))
        return sorted((_state(run) for run in answer.run_dict.values()), key=lambda r: -r.id)

    def stop(self, number: int) -> bool:
        """Ask for a run to end; whether it does."""
        return bool(self.client.StopRun(StopRunRequest(run_id=number)).success)

    def end_orphans(self, started: datetime) -> list[int]:
        """End the runs that ran before this server was `started`; returns their numbers.

        Their processes ended with the last server, perhaps in the middle of a message: a partner
        would wait for the rest of it until Flower misses the run's heartbeat, most of a minute.
        """
        latest = self.runs(LOOKED_BACK)
        orphans = [r.id for r in latest if not r.ended and r.began and r.began < started]
        return [number for number in orphans if self.stop(number)]


def _state(run: Any) -> RunState:
    began = datetime.fromisoformat(run.running_at) if run.running_at else None
    status = run.status
    return RunState(run.run_id, status.status, status.sub_status, status.details, began)


@contextmanager
def connect(port: int, authority: Path) -> Iterator[Control]:
    """The SuperLink of this machine.

    Raises UserError when none answers.
    """
    client = control_client(f"127.0.0.1:{port}", authority.read_bytes())
    try:
        yield Control(client)
    except httpx.TransportError as error:
        raise UserError(
            f"no server answers on this machine's port {port}: start it with "
            "`fedaccord server start`"
        ) from error
    except httpx.HTTPStatusError as error:
        raise UserError(f"the server refused: {error.response.text[:200]}") from error
    finally:
        client.close()


def read_keys(folder: Path) -> dict[str, bytes]:
    """The public keys `NAME.pub` of a folder, by partner, as the SuperLink wants them.

    Raises UserError when one is not a key of the right kind.
    """
    keys = {}
    for path in sorted(folder.glob("*.pub")):
        try:
            key = load_ssh_public_key(path.read_bytes())
        except ValueError as error:
            raise UserError(f"{path} is not a public key") from error
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise UserError(f"{path} is not an elliptic-curve key")
        keys[path.stem] = public_key_to_bytes(key)
    return keys
