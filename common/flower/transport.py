"""How Flower cuts messages into objects, carries these, and puts them together again."""

from __future__ import annotations

from flwr.app import Error, Message, Metadata
from flwr.app.message import make_message
from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE as CHUNK_BYTES
from flwr.common.constant import ErrorCode
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree
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

__all__ = [
    "CHUNK_BYTES",
    "ConfirmMessageReceivedRequest",
    "HttpGrid",
    "ObjectPullError",
    "ObjectTree",
    "ObjectUnavailableError",
    "PullAppMessagesRequest",
    "error_reply",
    "get_object_body",
    "get_object_head_values_from_object_content",
    "inflate_object_from_contents",
    "iterate_object_tree",
    "make_pull_object_fn_protobuf",
    "pull_objects",
    "set_question",
]


def error_reply(run_id: int, node_id: int, question: str, reason: str) -> Message:
    """An error in the place of the reply to `question`."""
    metadata = Metadata(
        run_id=run_id,
        message_id="",
        src_node_id=node_id,
        dst_node_id=node_id,
        reply_to_message_id=question,
        group_id="",
        created_at=now().timestamp(),
        ttl=0,
        message_type=SYSTEM_MESSAGE_TYPE,
    )
    return make_message(metadata, error=Error(ErrorCode.MESSAGE_UNAVAILABLE, reason))


def set_question(reply: Message, question: str) -> None:
    """Say which question `reply` answers, whatever its sender wrote there."""
    reply.metadata.__dict__["_reply_to_message_id"] = question
