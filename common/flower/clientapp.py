"""Flower's ClientApp process: it fetches one message, answers it, and exits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flwr.app import Context, Message
from flwr.supernode.runtime import run_clientapp

from common.flower.executor import ExecutionSpec, connection
from common.flower.substitution import substitute


def answer_message(
    spec: ExecutionSpec,
    check: Callable[[bytes], None],
    answer: Callable[[Message, Context], Message],
) -> None:
    """Answer the message of a task with `answer`, and run nothing that was sent with it.

    Args:
        check: raises when the submitted app bundle is not acceptable; the bundle is not unpacked.
    """

    def install(content: bytes, **_: object) -> Path:
        check(content)
        return Path()

    # The two places where Flower would unpack and import what the coordinator sent.
    substitute(run_clientapp, "install_from_fab", install)
    substitute(run_clientapp, "get_load_client_app_fn", lambda **_: lambda *__: answer)
    run_clientapp.run_clientapp(**connection(spec))
