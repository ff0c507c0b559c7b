"""Flower's SuperExec with one kind of task, forked from a process that has its imports done.

Flower starts a process per message.  A fresh interpreter would spend seconds on importing torch
and transformers; here a fork server has imported them once, and a message costs a fork.  Tasks of
any other kind (Flower knows agents, models and connectors too) are never accepted.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Sequence
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from typing import Any

from flwr.supercore.cli import flower_superexec
from flwr.supercore.constant import TaskType
from flwr.supercore.superexec import run_superexec as superexec
from flwr.supercore.superexec.executor import ExecutionSpec, LaunchResult
from flwr.supercore.superexec.plugin import AutoExecPlugin

Task = Callable[[ExecutionSpec], None]


class ForkingExecutor:
    """Runs `task(spec)` in a process forked from one that imported `preload`."""

    def __init__(self, kind: TaskType, task: Task, preload: Sequence[str]) -> None:
        self.kind = kind
        self.task = task
        self.context: ForkServerContext = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(list(preload))
        # Now, and not when the first message waits for it.
        forkserver.ensure_running()
        self.running: list[BaseProcess] = []

    def get_eligible_capacity(
        self, supported_task_types: set[TaskType], **_: object
    ) -> tuple[set[TaskType], set[str]]:
        """This one kind, whenever it is asked for."""
        return supported_task_types & {self.kind}, set()

    def wait_for_capacity(self, *_: object, **__: object) -> None:
        """There is no limit to wait for: Flower sends one message at a time to a node."""

    def launch(self, spec: ExecutionSpec) -> LaunchResult:
        """Start the process; anything but the one kind is refused."""
        if spec.task_type != self.kind:
            return LaunchResult.failed(f"tasks of type {spec.task_type} are not accepted here")
        process = self.context.Process(target=self.task, args=(spec,))
        process.start()
        self.running.append(process)
        return LaunchResult.accepted()

    def reconcile(self) -> None:
        """Reap what has ended."""
        for process in [p for p in self.running if not p.is_alive()]:
            process.join()
            process.close()
            self.running.remove(process)

    def close(self) -> None:
        """End what still runs."""
        for process in self.running:
            process.terminate()
        for process in self.running:
            process.join(5)
            if process.is_alive():
                process.kill()
        self.running.clear()


def run(kind: TaskType, task: Task, preload: Sequence[str], arguments: Sequence[str]) -> None:
    """Serve tasks until told to end; `arguments` are those of `flower-superexec`."""
    executor = ForkingExecutor(kind, task, preload)
    AutoExecPlugin.supported_task_types = frozenset({kind})
    substitute(superexec, "get_executor", lambda *_, **__: executor)
    sys.argv = ["flower-superexec", *arguments]
    flower_superexec()


def substitute(module: Any, name: str, value: object) -> None:
    """Put `value` in the place of `module.name`, which must be there.

    Raises RuntimeError when another version of Flower has no such place: what was to be guarded
    would then not be.
    """
    if not hasattr(module, name):
        raise RuntimeError(f"this version of Flower has no {module.__name__}.{name}")
    setattr(module, name, value)
