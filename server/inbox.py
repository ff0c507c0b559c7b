"""Flower's Grid for partners that are not trusted: a reply that is wrong harms no other.

Flower's own grid waits until every object of a reply has arrived, and all other replies wait behind
it: a partner that dies while it uploads holds a round up for minutes.  It puts arrays of any size
together from a few bytes, because an array may name one chunk many times.  And a reply that cannot
be put together ends the run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from flwr.app import Array, Error, Message, Metadata, RecordDict
from flwr.app.message import make_message
from flwr.common.constant import ErrorCode
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.supercore.constant import SYSTEM_MESSAGE_TYPE
from flwr.supercore.date import now
from flwr.supercore.inflatable.inflatable_object import (
    get_object_body,
    get_object_head_values_from_object_content,
    iterate_object_tree,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectUnavailableError,
    inflate_object_from_contents,
    pull_objects,
)
from flwr.superlink.grid import HttpGrid

from common.messages import MessageError, array_bytes

# A reply has the size of the question and a report; whoever sends more than twice that and this is
# not answering it.
REPORT_BYTES = 16 << 20


@dataclass
class Arriving:
    """A reply whose objects are on their way."""

    message: str
    objects: list[str]
    contents: dict[str, bytes] = field(default_factory=dict)
    late: bool = False

    def check(self, limit: int) -> None:
        """Raises MessageError when what has arrived is larger than `limit` bytes."""
        if sum(map(len, self.contents.values())) > limit:
            raise MessageError(f"the reply is larger than {limit >> 20} MiB")


class Inbox(HttpGrid):
    """A grid that never waits for a reply, and answers for one that is unusable with an error."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._arriving: dict[str, Arriving] = {}
        self._limit = REPORT_BYTES

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send questions; what is still missing of earlier replies is too late."""
        questions = list(messages)
        sent = max((array_bytes(m.content) for m in questions if m.has_content()), default=0)
        self._limit = REPORT_BYTES + 2 * sent
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
            objects = dict.fromkeys(part.object_id for part in iterate_object_tree(tree))
            arriving = Arriving(reply.metadata.message_id, list(objects))
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
            message = unpacked(arriving.message, arriving.contents, self._limit)
        except ObjectPullError:
            if arriving.late:
                return None
            return self._unusable(question, "the sender did not finish sending it")
        except MessageError as error:
            return self._unusable(question, str(error))
        finally:
            arriving.late = False
        self._runtime_client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(
                node=self.node, run_id=self.run.run_id, message_object_id=arriving.message
            )
        )
        # What the sender wrote there may name another partner's question.
        message.metadata.__dict__["_reply_to_message_id"] = question
        return message

    def _fetch(self, arriving: Arriving) -> None:
        pull = make_pull_object_fn_protobuf(
            self._runtime_client.PullObject, self.node, self.run.run_id
        )

        def once(identity: str) -> bytes:
            if identity not in arriving.contents:
                arriving.check(self._limit)
                try:
                    arriving.contents[identity] = pull(identity)
                except ObjectUnavailableError:
                    arriving.late = True
                    raise
            return b""

        pull_objects(arriving.objects, once, max_tries_per_object=1)

    def _unusable(self, question: str, reason: str) -> Message:
        metadata = Metadata(
            run_id=self.run.run_id,
            message_id="",
            src_node_id=self.node.node_id,
            dst_node_id=self.node.node_id,
            reply_to_message_id=question,
            group_id="",
            created_at=now().timestamp(),
            ttl=0,
            message_type=SYSTEM_MESSAGE_TYPE,
        )
        return make_message(metadata, error=Error(ErrorCode.MESSAGE_UNAVAILABLE, reason))


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
