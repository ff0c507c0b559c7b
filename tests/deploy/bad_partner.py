"""A partner that can go wrong in real processes: `python -m tests.deploy.bad_partner partner.yaml`.

What goes wrong in which round is in the file `faults` beside partner.yaml, e.g. `nan=1 shape=2`;
without that file nothing does.
"""

from __future__ import annotations

import errno
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from common import worker

if TYPE_CHECKING:
    # As for the honest partner, the process that only watches shall not import torch.
    from flwr.app import Context, Message, RecordDict

    from common.flower.executor import ExecutionSpec

    Answer = Callable[[Message, Context], Message]


def own_folder() -> Path:
    from client.deployed import PARTNER_VARIABLE

    return Path(os.environ[PARTNER_VARIABLE]).parent


def faults() -> dict[int, str]:
    path = own_folder() / "faults"
    pairs = [x.partition("=") for x in path.read_text().split()] if path.exists() else []
    return {int(number): kind for kind, _, number in pairs}


def changed(kind: str, content: RecordDict) -> RecordDict:
    """The reply of an honest partner, spoilt."""
    import torch
    from flwr.app import Array, RecordDict

    from common import messages
    from common.messages import Report

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
    state = own_folder() / "state"
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
    (own_folder() / "holds").touch()
    time.sleep(3600)


def answer(honest: Answer, message: Message, context: Context) -> Message:
    from flwr.app import Message as Reply

    from client import deployed_session, handlers
    from common import messages
    from common.messages import Prepared

    asked = faults()
    if message.metadata.message_type == messages.PREPARE and asked.get(0) == "version":
        reply = honest(message, context)
        body = messages.unpack(reply.content)
        assert isinstance(body, Prepared)
        return Reply(messages.pack(replace(body, version="0.0.1")), reply_to=message)
    kind = None
    if message.metadata.message_type == messages.TRAIN:
        kind = asked.get(int(message.metadata.group_id))
    filler = fill_disk() if kind == "full" else None
    if kind == "hang":
        deployed_session.open_partner = lambda *_: time.sleep(3600)  # type: ignore[assignment]
    if kind == "hold":
        handlers.train_locally = hold  # type: ignore[assignment]
    try:
        reply = honest(message, context)
    finally:
        if filler is not None:
            filler.unlink()
    if kind in ("nan", "shape", "huge", "norm", "empty", "junk"):
        return Reply(changed(kind, reply.content), reply_to=message)
    return reply


def run(spec: ExecutionSpec) -> None:
    from client import task

    task._answer = partial(answer, task._answer)
    task.run(spec)


if __name__ == "__main__":
    if sys.argv[1].endswith(".yaml"):
        from client.deployed import load_partner_file
        from deployment.partner_service import start

        sys.exit(start(load_partner_file(Path(sys.argv[1])), "tests.deploy.bad_partner"))
    from common.flower.executor import TaskType

    worker.run(TaskType.CLIENT_APP, run, ["client.app", "client.task"], sys.argv[1:])
