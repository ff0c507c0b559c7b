"""Deadline and quorum, on a grid that answers when the test says so."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Event
from typing import Any

import pytest
from flwr.app import Error, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from common import messages
from common.messages import Prepared, Refusal, Request
from server.exchange import Stopped, ask

READY = Prepared("x", "f", "v", 1.0, 0.0)


class ScriptedGrid:
    """Answers a node's message with what `script` holds for it; None never answers."""

    def __init__(self, script: dict[int, object]) -> None:
        self.script = script
        self.sent: dict[str, Message] = {}

    def push_messages(self, out: Iterable[Message]) -> list[str]:
        for message in out:
            identity = f"m{message.metadata.dst_node_id}"
            message.metadata.__dict__["_message_id"] = identity
            self.sent[identity] = message
        return list(self.sent)

    def pull_messages(self, ids: Iterable[str]) -> list[Message]:
        replies = []
        for identity in ids:
            body = self.script[self.sent[identity].metadata.dst_node_id]
            if isinstance(body, (Error, RecordDict)):
                replies.append(Message(body, reply_to=self.sent[identity]))
            elif body is not None:
                replies.append(Message(messages.pack(body), reply_to=self.sent[identity]))
        return replies


@pytest.fixture(autouse=True)
def identity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TaskIdentity, "_task_id", 1)
    monkeypatch.setattr(TaskIdentity, "_run_id", 1)
    monkeypatch.setattr(TaskIdentity, "_node_id", 1)


def test_a_strangers_words_are_one_short_printable_line() -> None:
    found = asked({1: Refusal("p1", "no\n2026 INFO all is well")}, quorum=0.0)
    assert found.received[0].body.reason == "no"


def asked(script: dict[int, object], quorum: float, deadline: float = 0.3) -> Any:
    nodes = {f"p{node}": node for node in script}
    return ask(
        ScriptedGrid(script),  # type: ignore[arg-type]
        nodes,
        messages.TRAIN,
        "1",
        messages.pack(Request("run", 1)),
        deadline,
        quorum,
        Event(),
    )


def test_closes_at_once_when_all_have_answered() -> None:
    found = asked({1: READY, 2: Refusal("p2", "no")}, 1.0, deadline=60.0)
    assert {a.partner for a in found.received} == {"p1", "p2"}
    assert found.missing == []


def test_closes_at_the_deadline_with_a_quorum() -> None:
    found = asked({1: READY, 2: READY, 3: None}, 0.6)
    assert found.missing == ["p3"]


def test_refusals_do_not_make_a_quorum_but_the_wait_is_bounded() -> None:
    found = asked({1: READY, 2: Refusal("p2", "no"), 3: None}, 0.6)
    assert found.missing == ["p3"]
    assert len(found.received) == 2


def test_a_failed_nodes_traceback_is_one_line_without_colours() -> None:
    """As Flower's simulation reports an exception of a Ray worker."""
    reason = (
        "<class 'ray.exceptions.RayTaskError(ClientAppException)'>:<'\x1b[36mray::ClientAppActor"
        ".run()\x1b[39m (pid=4242, ip=172.17.0.2, actor_id=0c8a, repr=<actor>)\n"
        '  File "/home/somebody/ray_actor.py", line 58, in run\n    raise ex\n\'>'
    )
    (answer,) = asked({1: Error(code=0, reason=reason)}, quorum=0.0).received
    said = answer.body.reason
    assert said.startswith("no answer: ")
    assert "ray::ClientAppActor.run()" in said
    assert not [x for x in ("\x1b", "[36m", "\n", "4242", "172.17", "somebody") if x in said]


def test_an_error_and_a_foreign_reply_are_refusals_with_a_reason() -> None:
    found = asked({1: Error(code=0, reason="boom\nsecret"), 2: RecordDict()}, 1.0)
    reasons = {a.partner: a.body.reason for a in found.received}
    assert reasons["p1"] == "no answer: boom"
    assert "not a fedaccord message" in reasons["p2"]


def test_stop_ends_the_wait() -> None:
    stop = Event()
    stop.set()
    with pytest.raises(Stopped):
        ask(
            ScriptedGrid({1: None}),  # type: ignore[arg-type]
            {"p1": 1},
            messages.TRAIN,
            "1",
            messages.pack(Request("run", 1)),
            60.0,
            1.0,
            stop,
        )
