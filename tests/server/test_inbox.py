"""Replies as a hostile partner would craft them, unpacked by the coordinator."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from threading import Lock
from typing import Any

import pytest
import torch
from flwr.app import Array, Message, RecordDict
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import ConfirmMessageReceivedResponse, ObjectTree, PullObjectResponse
from flwr.proto.runtime_pb2 import PullAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import (
    add_header_to_object_body,
    get_all_nested_objects,
    get_object_tree,
)
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from common import messages
from common.messages import MessageError, Prepared
from server.inbox import Arriving, Inbox, Limits, expanded_bytes, unpacked

READY = Prepared("north", "f", "v", 1.0, 0.0)
LIMIT = 1 << 20


class Link:
    """What a SuperLink holds: replies, and those of their objects that have arrived."""

    def __init__(self) -> None:
        self.replies: list[tuple[Any, ObjectTree]] = []
        self.objects: dict[str, bytes] = {}
        self.confirmed: list[str] = []
        self.forgotten: set[str] = set()
        self.pulled = 0
        self.lock = Lock()

    def store(self, reply: Message, contents: dict[str, bytes]) -> None:
        reply.metadata.__dict__["_message_id"] = reply.object_id
        tree = get_object_tree(reply)
        proto = message_to_proto(Message(RecordDict(), reply_to=reply))
        proto.metadata.CopyFrom(message_to_proto(reply).metadata)
        self.replies.append((proto, tree))
        self.objects.update(contents)

    def PullMessages(self, request: Any) -> PullAppMessagesResponse:
        """Hands out replies and forgets their questions, as the SuperLink does."""
        assert not self.forgotten & set(request.message_ids)
        now, self.replies = self.replies, []
        self.forgotten |= {reply.metadata.reply_to_message_id for reply, _ in now}
        return PullAppMessagesResponse(
            messages_list=[reply for reply, _ in now], message_object_trees=[t for _, t in now]
        )

    def PullObject(self, request: Any) -> PullObjectResponse:
        with self.lock:
            self.pulled += 1
        content = self.objects.get(request.object_id)
        if content is None:
            return PullObjectResponse(object_found=False)
        return PullObjectResponse(
            object_found=True, object_available=content != b"", object_content=content
        )

    def ConfirmMessageReceived(self, request: Any) -> ConfirmMessageReceivedResponse:
        self.confirmed.append(request.message_object_id)
        return ConfirmMessageReceivedResponse()


@pytest.fixture(autouse=True)
def identity(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


@pytest.fixture
def link() -> Link:
    return Link()


@pytest.fixture
def inbox(link: Link) -> Inbox:
    box = Inbox("127.0.0.1:1", insecure=True, token="t")
    box.set_run(Run.create_empty(run_id=1))
    box._client = link  # type: ignore[assignment]
    return box


def reply(question: str, content: RecordDict | None = None) -> tuple[Message, dict[str, bytes]]:
    asked = Message(messages.pack(READY), 7, messages.TRAIN)
    asked.metadata.__dict__["_message_id"] = question
    answer = Message(content or messages.pack(READY, {"w": torch.ones(3)}), reply_to=asked)
    return answer, {i: x.deflate() for i, x in get_all_nested_objects(answer).items()}


def test_an_honest_reply_arrives_once_and_is_confirmed(inbox: Inbox, link: Link) -> None:
    link.store(*reply("q1"))
    (found,) = inbox.pull_messages(["q1", "q2"])
    assert found.metadata.reply_to_message_id == "q1"
    assert messages.unpack(found.content) == READY
    assert messages.arrays(found.content)["w"].tolist() == [1, 1, 1]
    assert len(link.confirmed) == 1
    assert list(inbox.pull_messages(["q2"])) == []


def test_nobody_waits_for_a_reply_that_is_still_on_its_way(inbox: Inbox, link: Link) -> None:
    slow, contents = reply("slow")
    quick, others = reply("quick")
    late = max(contents.keys() - others.keys())
    link.store(slow, {**contents, late: b""})
    link.store(quick, others)
    assert [m.metadata.reply_to_message_id for m in inbox.pull_messages(["slow", "quick"])] == [
        "quick"
    ]
    assert list(inbox.pull_messages(["slow"])) == []
    link.objects[late] = contents[late]
    (found,) = inbox.pull_messages(["slow"])
    assert messages.unpack(found.content) == READY


def test_a_reply_that_never_arrives_wholly_is_an_error(inbox: Inbox, link: Link) -> None:
    broken, contents = reply("q")
    contents.pop(min(contents))
    link.store(broken, contents)
    (found,) = inbox.pull_messages(["q"])
    assert found.metadata.reply_to_message_id == "q"
    assert "did not finish" in str(found.error.reason)


def test_another_partners_question_cannot_be_answered(inbox: Inbox, link: Link) -> None:
    forged, contents = reply("mine")
    link.store(forged, contents)
    # The SuperLink has checked whom the envelope answers; the letter says something else.
    other, contents = reply("theirs")
    proto, tree = link.replies.pop()
    tree = get_object_tree(other)
    proto.metadata.message_id = other.object_id
    link.replies.append((proto, tree))
    link.objects.update(contents)
    (found,) = inbox.pull_messages(["mine", "theirs"])
    assert found.metadata.reply_to_message_id == "mine"


def test_more_bytes_than_an_answer_can_have_are_not_fetched(inbox: Inbox, link: Link) -> None:
    large = messages.pack(READY, {"w": torch.rand(8 << 20)})
    link.store(*reply("q", large))
    (found,) = inbox.pull_messages(["q"])
    assert "larger than 16 MiB" in str(found.error.reason)


def test_a_few_bytes_do_not_become_many() -> None:
    content = messages.pack(READY, {"w": torch.zeros(16 << 20)})
    answer, contents = reply("q", content)
    assert sum(map(len, contents.values())) < 16 << 20
    assert expanded_bytes(contents) > 64 << 20
    with pytest.raises(MessageError, match="larger than 32 MiB"):
        unpacked(answer.object_id, contents, 32 << 20)
    one = Array(torch.rand(1 << 16).numpy())
    many = messages.pack(READY)
    many[messages.ARRAYS] = messages.pack(READY, {})[messages.ARRAYS]
    for number in range(20):
        many.array_records[messages.ARRAYS][f"w{number}"] = one
    answer, contents = reply("q", many)
    assert expanded_bytes(contents) < LIMIT
    with pytest.raises(MessageError, match="larger than 1 MiB"):
        unpacked(answer.object_id, contents, LIMIT)


def test_more_objects_than_an_answer_can_have_are_not_fetched(inbox: Inbox, link: Link) -> None:
    link.store(*reply("q"))
    _, tree = link.replies[0]
    tiny = [named(b"%d" % number) for number in range(50_000)]
    tree.children.extend(ObjectTree(object_id=identity) for identity, _ in tiny)
    for _, contents in tiny:
        link.objects.update(contents)
    link.store(*reply("honest"))
    found = {m.metadata.reply_to_message_id: m for m in inbox.pull_messages(["q", "honest"])}
    assert str(found["q"].error.reason) == "the reply has more than 16 objects"
    assert messages.unpack(found["honest"].content) == READY
    assert link.pulled == 6
    assert len(link.confirmed) == 2


def test_as_many_objects_as_an_answer_can_have_are_fetched(inbox: Inbox, link: Link) -> None:
    """Three thousand tensors: each object is looked at once, however many there are."""
    question = Message(
        messages.pack(READY, {f"w{n}": torch.ones(n) for n in range(10)}), 7, "train"
    )
    assert Limits.of([question, Message(RecordDict(), 7, "train")]).objects == 16 + 4 * 10
    inbox._limits = Limits(objects=50_000)
    tensors = {f"w{n}": torch.full((1,), float(n)) for n in range(3_000)}
    link.store(*reply("q", messages.pack(READY, tensors)))
    (found,) = inbox.pull_messages(["q"])
    assert len(messages.arrays(found.content)) == 3_000
    assert link.pulled == 6_004


def test_a_reply_may_be_looked_at_while_threads_fill_it() -> None:
    """Threads of an earlier look go on after it has ended."""
    arriving = Arriving("m", [str(n) for n in range(60_000)], Limits(size=60_000, objects=60_000))

    def fill(first: int) -> None:
        for number in range(first, 60_000, 3):
            arriving.put(str(number), b"x")

    with ThreadPoolExecutor(3) as pool:
        filled = [pool.submit(fill, first) for first in range(3)]
        while not all(each.done() for each in filled):
            arriving.check()
            there = arriving.contents()
            assert len(there) <= 60_000
            assert not there.keys() & set(arriving.missing())
        assert [each.result() for each in filled] == [None] * 3
    assert arriving.missing() == []
    with pytest.raises(MessageError, match="larger than"):
        arriving.put("one more", b"x")


def named(content: bytes) -> tuple[str, dict[str, bytes]]:
    identity = sha256(content).hexdigest()
    return identity, {identity: content}


def test_what_is_no_message_is_an_error_of_its_sender() -> None:
    array = Array(torch.ones(2).numpy())
    pieces = {i: x.deflate() for i, x in get_all_nested_objects(array).items()}
    bodies = [
        named(b"rubbish"),
        named(b"Message,,3\0abc"),
        named(b"Array,,%d\0" % 2 + b"{}"),
        named(b"Nothing,,0\0"),
        named(f"RecordDict,{'0' * 64},0\0".encode()),
        (array.object_id, pieces),
    ]
    places = json.dumps(
        {"dtype": "f", "shape": [1], "stype": "numpy.ndarray", "arraychunk_ids": [5]}
    ).encode()
    bodies.append(named(add_header_to_object_body(places, Array(torch.ones(0).numpy()))))
    for identity, contents in bodies:
        with pytest.raises(MessageError, match=r"message|unpacked"):
            unpacked(identity, contents, LIMIT)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b"\x93NUMPY\x01\x00\x10\x00{'descr': '|O'}  \n",
        b"\x93NUMPY\x01\x00\x46\x00"
        + b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,)}".ljust(69)
        + b"\n",
        b"PK\x05\x06" + 18 * b"\0",
    ],
)
def test_arrays_that_numpy_cannot_read_are_refused(data: bytes) -> None:
    content = messages.pack(READY, {"w": torch.ones(2)})
    content.array_records[messages.ARRAYS]["w"] = Array("float32", (2,), "numpy.ndarray", data)
    with pytest.raises(MessageError, match="unreadable parameters"):
        messages.arrays(content)
