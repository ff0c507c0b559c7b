"""`python -m client.node`: Flower's SuperNode, which does not give up when its connection is cut.

Flower takes every failed TLS handshake for a wrong certificate and stops trying, while the process
lives on: a cable that is cut while a handshake runs would take the partner out for good.  Here only
a certificate that is not trusted is final.  Its heart beats every fifteen seconds and not thirty:
after a loss of power the server holds its key for in use for two beats.
"""

from __future__ import annotations

from typing import Any

from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supernode import fleet_http_connection
from flwr.supernode.cli import flower_supernode

from common.worker import substitute

HEARTBEAT_SECONDS = 15


def is_final(error: Exception) -> bool:
    """Whether a failed handshake will fail again: the server's certificate is not trusted."""
    return "certificate" in str(error).lower()


def is_handshake(error: Exception) -> bool:
    """Whether Flower would take `error` for a failed TLS handshake."""
    return any(term in str(error).lower() for term in ("ssl", "tls", "certificate"))


def patient_invoker() -> Any:
    """Flower's retrying, with cut handshakes tried again."""
    invoker: Any = make_simple_http_retry_invoker()
    asked = invoker.should_giveup

    def should_give_up(error: Exception) -> bool:
        if is_handshake(error) and not is_final(error):
            return False
        return bool(asked(error))

    invoker.should_giveup = should_give_up
    return invoker


if __name__ == "__main__":
    substitute(fleet_http_connection, "make_simple_http_retry_invoker", patient_invoker)
    substitute(fleet_http_connection, "HEARTBEAT_DEFAULT_INTERVAL", HEARTBEAT_SECONDS)
    flower_supernode()
