"""`python -m client.node`: Flower's SuperNode, which does not give up when its connection is cut.

Flower takes every failed TLS handshake for a wrong certificate and stops trying, while the process
lives on: a cable that is cut while a handshake runs would take the partner out for good.  Here only
a certificate that is not trusted is final.  Its heart beats at least every fifteen seconds and not
thirty: after a loss of power the server holds its key for in use for two beats.  An idle node asks
for messages every second and not every three: a round has several, and small jobs are mostly
waiting.  And for the first minutes it never waits longer than four seconds before it tries again,
so that a server that was restarted has its partners back when its coordinator continues the run.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice, repeat
from typing import Any

from flwr.supercore import heartbeat
from flwr.supercore.retry import exponential, make_simple_http_retry_invoker
from flwr.supernode import fleet_http_connection, start_client_internal
from flwr.supernode.cli import flower_supernode

from common.worker import substitute

HEARTBEAT_SECONDS = 15
POLL_SECONDS = 1.0
RETRY_SECONDS = 4
# Flower draws each wait at random up to its limit, so some two minutes; then as patient as Flower.
QUICK_TRIES = 60
PATIENT_SECONDS = 20


class Clock:
    """What Flower's loop over messages takes from `time`: to sleep, never longer than a poll."""

    @staticmethod
    def sleep(seconds: float) -> None:
        """Shorter than Flower asks for when that is longer than a poll."""
        time.sleep(min(seconds, POLL_SECONDS))


def is_final(error: Exception) -> bool:
    """Whether a failed handshake will fail again: the server's certificate is not trusted."""
    return "certificate" in str(error).lower()


def is_handshake(error: Exception) -> bool:
    """Whether Flower would take `error` for a failed TLS handshake."""
    return any(term in str(error).lower() for term in ("ssl", "tls", "certificate"))


def waits(**_: object) -> Iterator[float]:
    """The limits of the waits between tries, in seconds."""
    yield from islice(exponential(max_delay=RETRY_SECONDS), QUICK_TRIES)
    yield from repeat(PATIENT_SECONDS)


def patient_invoker() -> Any:
    """Flower's retrying, with cut handshakes tried again and no long waits at first."""
    invoker: Any = make_simple_http_retry_invoker()
    asked = invoker.should_giveup

    def should_give_up(error: Exception) -> bool:
        if is_handshake(error) and not is_final(error):
            return False
        return bool(asked(error))

    invoker.should_giveup = should_give_up
    invoker.wait_gen_factory = waits
    return invoker


if __name__ == "__main__":
    substitute(fleet_http_connection, "make_simple_http_retry_invoker", patient_invoker)
    substitute(fleet_http_connection, "HEARTBEAT_DEFAULT_INTERVAL", HEARTBEAT_SECONDS)
    substitute(heartbeat, "HEARTBEAT_DEFAULT_INTERVAL", HEARTBEAT_SECONDS)
    substitute(heartbeat, "exponential", waits)
    substitute(start_client_internal, "time", Clock)
    flower_supernode()
