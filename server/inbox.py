"""Flower's Grid for partners that are not trusted: a reply that is wrong harms no other.

Flower's own grid waits until every object of a reply has arrived, and all other replies wait behind
it: a partner that dies while it uploads holds a round up for minutes.  It puts arrays of any size
together from a few bytes, because an array may name one chunk many times.  And a reply that cannot
be put together ends the run.

What one partner can make the coordinator hold is bounded before it is fetched: the number of a
reply's objects by the number of tensors that were sent out, and its bytes, as they arrive, by
theirs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from threading import Lock
from typing import Any, cast

from flwr.app import Array, Message, RecordDict

from common.flower.transport import (
    CHUNK_BYTES,
    ConfirmMessageReceivedRequest,
    HttpGrid,
    ObjectPullError,
    ObjectTree,
    ObjectUnavailableError,
    PullAppMessagesRequest,
    error_reply,
    get_object_body,
    get_object_head_values_from_object_content,
    inflate_object_from_contents,
    iterate_object_tree,
    make_pull_object_fn_protobuf,
    pull_objects,
    set_question,
)
from common.messages import MessageError, array_bytes, array_count

# A reply has the size of the question and a report; whoever sends more than twice that and this is
# not answering it.
REPORT_BYTES = 16 << 20
# A reply is a message, its content, a header and the arrays: four objects and some to spare.
REPORT_OBJECTS = 16


@dataclass(frozen=True)
class Limits:
    """What a reply may hold: bytes, and objects."""

    size: int = REPORT_BYTES
    objects: int = REPORT_OBJECTS

    @classmethod
    def of(cls, questions: Iterable[Message]) -> Limits:
        """Those of the replies to `questions`.

        A reply holds at most two arrays for each one in the question (a tensor's values and their
        scales) of at most as many bytes; an array is one object and one for each of its chunks.
        """
        size = tensors = 0
        for question in questions:
            if question.has_content():
                size = max(size, array_bytes(question.content))
                tensors = max(tensors, array_count(question.content))
        chunks = 2 * size // CHUNK_BYTES
        return cls(REPORT_BYTES + 2 * size, REPORT_OBJECTS + 4 * tensors + chunks)

    def too_large(self) -> MessageError:
        """The refusal of a reply of too many bytes."""
        return MessageError(f"the reply is larger than {self.size >> 20} MiB")


class Arriving:
    """A reply whose objects are on their way; several threads may add to it."""

    def __init__(self, message: str, objects: Sequence[str] | None, limits: Limits) -> None:
        """`objects` are the identities of its parts; None where they are more than the limit."""
        self.message = message
        self.objects = objects
        self.limits = limits
        self.late = False
        self._contents: dict[str, bytes] = {}
        self._size = 0
        self._lock = Lock()

    @classmethod
    def of(cls, message: str, tree: ObjectTree, limits: Limits) -> Arriving:
        """Looks at no more of the `tree` than the limit allows."""
        parts = list(islice(iterate_object_tree(tree), limits.objects + 1))
        if len(parts) > limits.objects:
            return cls(message, None, limits)
        return cls(message, list(dict.fromkeys(part.object_id for part in parts)), limits)

    def missing(self) -> list[str]:
        """What has not arrived yet.

        Raises MessageError when there are more objects than the limit.
        """
        if self.objects is None:
            raise MessageError(f"the reply has more than {self.limits.objects} objects")
        with self._lock:
            return [identity for identity in self.objects if identity not in self._contents]

    def check(self) -> None:
        """Raises MessageError when more bytes have arrived than the limit."""
        if self._size > self.limits.size:
            raise self.limits.too_large()

    def put(self, identity: str, content: bytes) -> None:
        """Keep what has arrived.

        Raises MessageError when that are more bytes than the limit.
        """
        with self._lock:
            if identity not in self._contents:
                self._contents[identity] = content
                self._size += len(content)
        self.check()

    def contents(self) -> dict[str, bytes]:
        """A copy of what has arrived, by identity."""
        with self._lock:
            return dict(self._contents)


class Inbox(HttpGrid):
    """A grid that never waits for a reply, and answers for one that is unusable with an error."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._arriving: dict[str, Arriving] = {}
        self._limits = Limits()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send questions; what is still missing of earlier replies is too late."""
        questions = list(messages)
        self._limits = Limits.of(questions)
        self._arriving.clear()
        return super().push_messages(questions)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies to the questions `message_ids` that are wholly there."""
        asked = list(message_ids)
        # The SuperLink forgets a question once it has handed out its reply; asked for it again, it
        # would answer with an error in the place of the reply that is on its way.
        unheard = [question for question in asked if question not in self._arriving]
        answer = self._runtime_client.PullMessages(PullAppMessagesRequest(message_ids=unheard))
        for reply, tree in zip(answer.messages_list, answer.message_object_trees, strict=True):
            arriving = Arriving.of(reply.metadata.message_id, tree, self._limits)
            self._arriving[reply.metadata.reply_to_message_id] = arriving
        found = []
        for question in asked:
            if question in self._arriving and (message := self._received(question)) is not None:
                del self._arriving[question]
                found.append(message)
        return found

    def _received(self, question: str) -> Message | None:
        """The reply to `question`, an error in its place, or None while it is on its way."""
        arriving = self._arriving[question]
        try:
            self._fetch(arriving)
            message = unpacked(arriving.message, arriving.contents(), self._limits.size)
        except ObjectPullError:
            if arriving.late:
                return None
            message = self._unusable(question, "the sender did not finish sending it")
        except MessageError as error:
            message = self._unusable(question, str(error))
        finally:
            arriving.late = False
        # Also of a reply that is refused: the SuperLink can let its objects go.
        self._runtime_client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(
                node=self.node, run_id=self.run.run_id, message_object_id=arriving.message
            )
        )
        # What the sender wrote there may name another partner's question.
        set_question(message, question)
        return message

    def _fetch(self, arriving: Arriving) -> None:
        pull = make_pull_object_fn_protobuf(
            self._runtime_client.PullObject, self.node, self.run.run_id
        )

        def once(identity: str) -> bytes:
            # Before the next one is fetched: others may have filled the reply meanwhile.
            arriving.check()
            try:
                arriving.put(identity, pull(identity))
            except ObjectUnavailableError:
                arriving.late = True
                raise
            return b""

        if missing := arriving.missing():
            pull_objects(missing, once, max_tries_per_object=1)

    def _unusable(self, question: str, reason: str) -> Message:
        return error_reply(self.run.run_id, self.node.node_id, question, reason)


def unpacked(identity: str, contents: dict[str, bytes], limit: int) -> Message:
    """The message `identity` from the contents of its objects, which are used up.

    Raises MessageError when it is no message, or its arrays take more than `limit` bytes.
    """
    too_large = f"the reply is larger than {limit >> 20} MiB"
    try:
        if expanded_bytes(contents) > limit:
            raise MessageError(too_large)
        message = cast(object, inflate_object_from_contents(identity, contents))
    except MessageError:
        raise
    except Exception as error:
        raise MessageError(f"the reply cannot be unpacked ({type(error).__name__})") from error
    if not isinstance(message, Message):
        raise MessageError("the reply is not a message")
    if message.has_content():
        if not isinstance(cast(object, message.content), RecordDict):
            raise MessageError("the reply is not a message")
        # One array may stand under many names.
        if array_bytes(message.content) > limit:
            raise MessageError(too_large)
    return message


def expanded_bytes(contents: Mapping[str, bytes]) -> int:
    """Bytes of all arrays once their chunks are put together."""
    total = 0
    for content in contents.values():
        kind, children, _ = get_object_head_values_from_object_content(content)
        if kind == Array.__qualname__:
            places = json.loads(get_object_body(content, Array))["arraychunk_ids"]
            total += sum(len(contents[children[place]]) for place in places)
    return total
