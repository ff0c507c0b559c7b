"""A partner that goes wrong in real processes: `python -m tests.deploy.bad_partner partner.yaml`.

What goes wrong in which round is in FEDACCORD_TEST_FAULTS, e.g. `nan=1 shape=2`.
"""

from __future__ import annotations

import errno
import os
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from flwr.app import Array, Context, Message, RecordDict
from flwr.supercore.constant import TaskType
from flwr.supercore.superexec.executor import ExecutionSpec

from client import session, task, work
from client.deployed import PARTNER_VARIABLE, load_partner_file
from common import messages, worker
from common.messages import Prepared, Report

honest = task._answer


def faults() -> dict[int, str]:
    pairs = [x.partition("=") for x in os.environ["FEDACCORD_TEST_FAULTS"].split()]
    return {int(number): kind for kind, _, number in pairs}


def changed(kind: str, content: RecordDict) -> RecordDict:
    """The reply of an honest partner, spoilt."""
    body, arrays = messages.unpack(content), messages.arrays(content)
    assert isinstance(body, Report)
    name = next(iter(arrays))
    if kind == "nan":
        arrays[name] = torch.full_like(arrays[name], float("nan"))
    elif kind == "shape":
        arrays[name] = torch.zeros(3, 3)
    elif kind == "huge":
        # Equal chunks travel once: a few bytes on the wire, 32 MB when put together.
        arrays[name] = torch.zeros(8_000_000)
    elif kind == "norm":
        arrays[name] = torch.full_like(arrays[name], 1e20)
    elif kind == "empty":
        return RecordDict()
    packed = messages.pack(body, arrays)
    if kind == "junk":
        packed.array_records[messages.ARRAYS][name] = Array("float32", (2,), "numpy.ndarray", b"x")
    return packed


def fill_disk() -> Path | None:
    """Fill the disk that this partner's files lie on; returns what fills it.

    Where that is no small disk of its own, all further writing fails instead.
    """
    state = load_partner_file(Path(os.environ[PARTNER_VARIABLE])).directory
    if not state.is_mount():
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        return None
    filler = state / "filler"
    for size in (1 << 20, 1):
        try:
            with filler.open("ab", buffering=0) as file:
                while file.write(b"0" * size):
                    pass
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
    return filler


def hold(*_: object, **__: object) -> None:
    """Say that training has begun, and never end it."""
    Path(os.environ["FEDACCORD_TEST_MARK"]).touch()
    time.sleep(3600)


def answer(message: Message, context: Context) -> Message:
    if message.metadata.message_type == messages.PREPARE and "version=0" in os.environ.get(
        "FEDACCORD_TEST_FAULTS", ""
    ):
        reply = honest(message, context)
        body = messages.unpack(reply.content)
        assert isinstance(body, Prepared)
        return Message(messages.pack(replace(body, version="0.0.1")), reply_to=message)
    kind = None
    if message.metadata.message_type == messages.TRAIN:
        kind = faults().get(int(message.metadata.group_id))
    filler = fill_disk() if kind == "full" else None
    if kind == "hang":
        session.open_session = lambda _: time.sleep(3600)  # type: ignore[assignment]
    if kind == "hold":
        work.train_locally = hold  # type: ignore[assignment]
    reply = honest(message, context)
    if filler is not None:
        filler.unlink()
    if kind in ("nan", "shape", "huge", "norm", "empty", "junk"):
        return Message(changed(kind, reply.content), reply_to=message)
    return reply


def run(spec: ExecutionSpec) -> None:
    task._answer = answer
    task.run(spec)


if __name__ == "__main__":
    if sys.argv[1].endswith(".yaml"):
        from scripts.partner import start

        sys.exit(start(load_partner_file(Path(sys.argv[1])), "tests.deploy.bad_partner"))
    worker.run(TaskType.CLIENT_APP, run, ["client.app", "client.task"], sys.argv[1:])
