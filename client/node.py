"""`python -m client.node`: Flower's SuperNode, which does not give up when its connection is cut.

It differs from Flower's own in four points:

- Flower takes every failed TLS handshake for a wrong certificate and stops trying, while the
  process lives on: a cable that is cut during a handshake would take the partner out for good.
  Here only a certificate that is not trusted is final.
- It sends a heartbeat every 15 s instead of 30 s: after a crash the server treats the node's key as
  in use for two intervals.
- An idle node asks for messages every second instead of every three: a round has several messages,
  and a small job mostly waits for them.
- For the first minutes it waits at most four seconds before it tries again, so that a restarted
  server has its partners back when the coordinator continues the run.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice, repeat
from typing import Any

from common.flower.supernode import (
    exponential,
    make_simple_http_retry_invoker,
    run_supernode,
)

HEARTBEAT_SECONDS = 15
POLL_SECONDS = 1.0
RETRY_SECONDS = 4
# Flower draws each wait at random up to its limit, so some two minutes; then as patient as Flower.
QUICK_TRIES = 60
PATIENT_SECONDS = 20


class Clock:
    """What Flower's loop over messages uses of `time`; it never sleeps longer than a poll."""

    @staticmethod
    def sleep(seconds: float) -> None:
        """Sleep `seconds`, or `POLL_SECONDS` if these are fewer."""
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
    run_supernode(patient_invoker, waits, Clock, HEARTBEAT_SECONDS)
