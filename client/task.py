"""One message at a deployed partner: Flower's ClientApp process, running our code and no other.

Only the process of a message imports what answers it, from a fork server that has it loaded.  The
process that watches for messages needs no torch.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from threading import Timer
from types import FrameType

from flwr.app import Context, Message

from common.bundle import check_bundle
from common.errors import UserError
from common.flower.clientapp import answer_message
from common.flower.executor import ExecutionSpec
from common.printable import short_entry
from common.refusals import Reason, Refused

log = logging.getLogger("fedaccord")

# A process that hangs outside Python is ended this long after its message has expired.
GRACE_SECONDS = 10.0


def run(spec: ExecutionSpec) -> None:
    """Fetch the message of this task, answer it, exit."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    log.setLevel(logging.INFO)
    answer_message(spec, _refuse_code, _answer)


def _refuse_code(content: bytes) -> None:
    """Accept only the bundle that holds no code.

    Raises UserError, whose text goes to the coordinator: one of the fixed list.
    """
    try:
        check_bundle(content)
    except UserError as error:
        log.error("%s", short_entry(str(error)))
        reason = error.reason if isinstance(error, Refused) else Reason.BUNDLE
        raise UserError(reason.sentence()) from None


def _answer(message: Message, context: Context) -> Message:
    """Our own ClientApp, for as long as somebody waits for its answer."""
    from client.app import app
    from client.refusal import described, public_reason
    from common.messages import Refusal, pack

    left = message.metadata.created_at + message.metadata.ttl - time.time()
    signal.signal(signal.SIGALRM, _too_late)
    signal.setitimer(signal.ITIMER_REAL, max(left, 0.1))
    watchdog = Timer(max(left, 0.1) + GRACE_SECONDS, os._exit, (70,))
    watchdog.daemon = True
    watchdog.start()
    began = time.perf_counter()
    try:
        reply = app(message=message, context=context)
        _tell_cost(reply, time.perf_counter() - began)
        return reply
    except Expired:
        log.error("%s", Reason.EXPIRED.value)
        return Message(pack(Refusal("?", Reason.EXPIRED.sentence())), reply_to=message)
    except Exception as error:
        # Flower would answer with its text, which may quote the message.
        log.error("%s", short_entry(described(error)))
        return Message(pack(Refusal("?", public_reason(error))), reply_to=message)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        watchdog.cancel()


def _tell_cost(reply: Message, seconds: float) -> None:
    """Log what this message took beside training."""
    from common.messages import Refusal, Report, unpack

    body = unpack(reply.content)
    # Texts of the coordinator's choice.
    kind = short_entry(reply.metadata.message_type[:40])
    number = short_entry(reply.metadata.group_id[:40])
    if isinstance(body, Refusal):
        log.warning("%s %s refused: %s", kind, number, body.reason)
    else:
        trained = body.train_seconds + body.frozen_seconds if isinstance(body, Report) else 0.0
        log.info("%s %s: %.2f s, of these %.2f s training", kind, number, seconds, trained)


class Expired(BaseException):
    """Nobody waits for the answer any more.

    No `Exception`: whoever handles errors of rows must not take the clock for one.
    """


def _too_late(_: int, __: FrameType | None) -> None:
    raise Expired
