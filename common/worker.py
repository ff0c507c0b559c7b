"""Flower's SuperExec for one kind of task, forked from a process that has finished its imports.

Flower starts one process per message.  A fresh interpreter would spend seconds on importing torch
and transformers; here a fork server has imported them once, and a message costs a fork.  Tasks of
any other kind (Flower knows agents, models and connectors too) are never accepted.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess

from common.flower.executor import ExecutionSpec, LaunchResult, TaskType, serve_tasks

Task = Callable[[ExecutionSpec], None]


class ForkingExecutor:
    """Runs `task(spec)` in a process forked from one that imported `preload`."""

    def __init__(self, kind: TaskType, task: Task, preload: Sequence[str]) -> None:
        self.kind = kind
        self.task = task
        self.context: ForkServerContext = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(list(preload))
        # Started now, not when the first message waits for it.
        forkserver.ensure_running()
        self.running: list[BaseProcess] = []

    def get_eligible_capacity(
        self, supported_task_types: set[TaskType], **_: object
    ) -> tuple[set[TaskType], set[str]]:
        """This one kind, at any time."""
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
    """Serve tasks of one kind until the process is told to end.

    Args:
        task: carries out one task, in a process of its own.
        preload: modules that the fork server imports.
        arguments: those of `flower-superexec`.
    """
    serve_tasks(kind, ForkingExecutor(kind, task, preload), arguments)
