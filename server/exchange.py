"""Questions to partners over Flower's Grid, with a deadline and a quorum."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Event
from typing import Any

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from common import messages
from common.messages import MessageError, Refusal
from strategies.records import node_failure

POLL_SECONDS = 0.01
LONGEST_PAUSE = 0.25


class Stopped(Exception):
    """Somebody asked the run to stop; the last checkpoint stands."""


@dataclass(frozen=True)
class Question:
    """One message for several partners.

    Attributes:
        kind: the message type, such as `train`.
        group: which messages belong together, such as a round's number.
        content: what every partner gets.
        deadline_seconds: how long a partner has to reply.
        quorum: the share of the partners, in [0, 1], that must have replied by then.
    """

    kind: str
    group: str
    content: RecordDict
    deadline_seconds: float
    quorum: float


@dataclass(frozen=True)
class Answer:
    """One partner's reply.

    Attributes:
        body: what the reply says; a Refusal when the reply was an error.
        content: the whole reply; None for an error, and once `on_answer` has seen it.
    """

    partner: str
    body: object
    content: RecordDict | None


@dataclass(frozen=True)
class Answers:
    """The answers in order of arrival, and the partners without one when the round closed."""

    received: list[Answer]
    missing: list[str]


def ask(
    grid: Grid,
    nodes: Mapping[str, int],
    question: Question,
    stop: Event,
    on_answer: Callable[[Answer], None] = lambda answer: None,
) -> Answers:
    """Send a question to every partner in `nodes` and collect the replies.

    Closes when all have replied, or at the deadline once the quorum has (refusals do not count), or
    at twice the deadline; a later reply expires with its message.

    Args:
        grid: how messages travel.
        nodes: the node of each partner, by the partner's name.
        question: what to send, and how long to wait.
        stop: ends the wait when it is set.
        on_answer: sees each reply as it arrives, and alone sees its content, so that a round does
            not hold every reply until its end.

    Raises:
        Stopped: `stop` was set.
    """
    deadline_seconds = question.deadline_seconds
    began = time.monotonic()
    # Twice the deadline: with too few replies at the deadline the round waits for the quorum.
    ttl = 2 * deadline_seconds
    out = [
        Message(question.content, node, question.kind, group_id=question.group, ttl=ttl)
        for node in nodes.values()
    ]
    waiting = dict(zip(grid.push_messages(out), nodes, strict=True))
    needed = math.ceil(question.quorum * len(nodes))
    received: list[Answer] = []
    usable = 0
    while waiting:
        if stop.is_set():
            raise Stopped
        asked = time.monotonic()
        replies = list(grid.pull_messages(list(waiting)))
        pulled = time.monotonic() - asked
        while replies:
            # Let go of one by one: together they may need more memory than there is.
            reply = replies.pop()
            answer = _read(waiting.pop(reply.metadata.reply_to_message_id), reply)
            usable += not isinstance(answer.body, Refusal)
            on_answer(answer)
            received.append(replace(answer, content=None))
        late = time.monotonic() - began
        enough = usable >= needed
        if late > deadline_seconds and (enough or late > 2 * deadline_seconds):
            break
        if waiting:
            # Pulling many replies takes time that other threads of this process need; in a
            # deployment a pull also downloads, and replies that are there must not wait for long.
            stop.wait(max(POLL_SECONDS, min(20 * pulled, LONGEST_PAUSE)))
    return Answers(received, list(waiting.values()))


def _read(name: str, reply: Message) -> Answer:
    if reply.has_error():
        return Answer(name, Refusal(name, f"no answer: {node_failure(reply.error.reason)}"), None)
    try:
        body = messages.unpack(reply.content)
    except MessageError as error:
        return Answer(name, Refusal(name, str(error)), None)
    return Answer(name, body, reply.content)


def wait_for_nodes(grid: Grid, count: int, deadline_seconds: float, stop: Event) -> Sequence[int]:
    """The ids of the connected nodes, once there are `count` of them or at the deadline.

    Raises Stopped when `stop` is set while waiting.
    """
    began = time.monotonic()
    while True:
        found = sorted(grid.get_node_ids())
        if len(found) >= count or time.monotonic() - began > deadline_seconds:
            return found
        if stop.wait(POLL_SECONDS):
            raise Stopped


def registered_names(grid: Grid) -> dict[int, str]:
    """The name under which each connected node's key was registered, by node id.

    Empty where the grid is not that of Flower's deployment runtime.
    """
    nodes: Iterable[Any] = getattr(grid, "get_nodes", list)()
    return {node.node_id: node.name for node in nodes if node.name}
