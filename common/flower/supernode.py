"""Flower's SuperNode: the process that keeps a partner's connection to the server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from flwr.supercore import heartbeat
from flwr.supercore.retry import exponential, make_simple_http_retry_invoker
from flwr.supernode import fleet_http_connection, start_client_internal
from flwr.supernode.cli import flower_supernode

from common.flower.substitution import substitute

__all__ = ["exponential", "make_simple_http_retry_invoker", "run_supernode"]


def run_supernode(
    invoker: Callable[[], Any],
    waits: Callable[..., Iterator[float]],
    clock: object,
    heartbeat_seconds: int,
) -> None:
    """Run `flower-supernode` with the arguments of this process.

    Args:
        invoker: makes what retries a request that failed.
        waits: gives the limits of the waits between heartbeats that failed, in seconds.
        clock: has `sleep(seconds)`, by which an idle node waits for messages.
        heartbeat_seconds: time between two heartbeats.
    """
    substitute(fleet_http_connection, "make_simple_http_retry_invoker", invoker)
    substitute(fleet_http_connection, "HEARTBEAT_DEFAULT_INTERVAL", heartbeat_seconds)
    substitute(heartbeat, "HEARTBEAT_DEFAULT_INTERVAL", heartbeat_seconds)
    substitute(heartbeat, "exponential", waits)
    substitute(start_client_internal, "time", clock)
    flower_supernode()
