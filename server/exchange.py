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
class Answer:
    """One partner's reply: the parsed body (Refusal when the reply was an error) and its content.

    `content` is None for an error reply, and once the reply has been looked at.
    """

    partner: str
    body: object
    content: RecordDict | None


@dataclass(frozen=True)
class Answers:
    """Who answered, in order of arrival, and who did not before the round closed."""

    received: list[Answer]
    missing: list[str]


def ask(
    grid: Grid,
    nodes: Mapping[str, int],
    kind: str,
    group: str,
    content: RecordDict,
    deadline_seconds: float,
    quorum: float,
    stop: Event,
    on_answer: Callable[[Answer], None] = lambda answer: None,
) -> Answers:
    """Send `content` to every partner in `nodes` and collect the replies.

    Closes when all have replied, or at the deadline once a share `quorum` of them has (refusals do
    not count), or at twice the deadline; a later reply expires with its message.  `on_answer` sees
    each reply as it arrives, and is the only one to see its content, so that a round does not hold
    every reply until its end.

    Raises Stopped when `stop` is set while waiting.
    """
    began = time.monotonic()
    # Twice the deadline: with too few replies at the deadline the round waits for the quorum.
    out = {
        name: Message(content, node, kind, group_id=group, ttl=2 * deadline_seconds)
        for name, node in nodes.items()
    }
    ids = list(grid.push_messages(out.values()))
    waiting = dict(zip(ids, out, strict=True))
    needed = math.ceil(quorum * len(nodes))
    received: list[Answer] = []
    usable = 0
    while waiting:
        if stop.is_set():
            raise Stopped
        asked = time.monotonic()
        replies = list(grid.pull_messages(list(waiting)))
        pulled = time.monotonic() - asked
        while replies:
            reply = replies.pop()
            name = waiting.pop(reply.metadata.reply_to_message_id)
            answer = _read(name, reply)
            usable += not isinstance(answer.body, Refusal)
            on_answer(answer)
            received.append(replace(answer, content=None))
        late = time.monotonic() - began
        enough = usable >= needed
        if late > deadline_seconds and (enough or late > 2 * deadline_seconds):
            break
        if waiting:
            # Asking for many replies takes its time, which others in this process need.
            # In a deployment a look also downloads, and what is there must not wait for long.
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
    """Node ids once at least `count` are there, or whoever is there at the deadline."""
    began = time.monotonic()
    while True:
        found = sorted(grid.get_node_ids())
        if len(found) >= count or time.monotonic() - began > deadline_seconds:
            return found
        if stop.wait(POLL_SECONDS):
            raise Stopped


def registered_names(grid: Grid) -> dict[int, str]:
    """The name that each connected node's key was registered under, by node id; only where
    Flower's deployment runtime is used."""
    nodes: Iterable[Any] = getattr(grid, "get_nodes", list)()
    return {node.node_id: node.name for node in nodes if node.name}
