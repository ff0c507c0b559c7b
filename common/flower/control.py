"""Flower's control interface: register keys, start and stop runs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

__all__ = [
    "ControlHttpClient",
    "ListNodesRequest",
    "ListRunsRequest",
    "RegisterNodeRequest",
    "StopRunRequest",
    "UnregisterNodeRequest",
    "control_client",
    "public_key_to_bytes",
    "start_request",
]
# Flower's server asks a client for its name and version.
COMPONENT = "flwr CLI"


def control_client(address: str, authority: bytes) -> ControlHttpClient:
    """A client of the SuperLink at `address`, whose certificate `authority` (PEM) has signed."""
    return ControlHttpClient.from_server_address(
        address,
        insecure=False,
        root_certificates=authority,
        interceptors=[RuntimeVersionHttpInterceptor(component_name=COMPONENT)],
    )


def start_request(bundle: bytes, run_config: Mapping[str, str]) -> StartRunRequest:
    """The request that starts a run of the app `bundle` with `run_config`."""
    fab = Fab(hashlib.sha256(bundle).hexdigest(), bundle, {})
    return StartRunRequest(
        fab=fab_to_proto(fab), override_config=user_config_to_proto(dict(run_config))
    )
