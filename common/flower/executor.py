"""Flower's SuperExec, which asks a runtime for tasks and has an executor run each of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Protocol

from flwr.supercore.cli import flower_superexec
from flwr.supercore.constant import TaskType
from flwr.supercore.superexec import run_superexec
from flwr.supercore.superexec.executor import ExecutionSpec, LaunchResult
from flwr.supercore.superexec.plugin import AutoExecPlugin
from flwr.supercore.tls import validate_and_resolve_root_certificates

from common.flower.substitution import substitute

__all__ = ["ExecutionSpec", "Executor", "LaunchResult", "TaskType", "connection", "serve_tasks"]


class Executor(Protocol):
    """What SuperExec calls."""

    def get_eligible_capacity(
        self, supported_task_types: set[TaskType], **_: object
    ) -> tuple[set[TaskType], set[str]]:
        """The kinds of tasks that may be claimed now, and the instances that wait for one."""

    def wait_for_capacity(self, *_: object, **__: object) -> None:
        """Return when a task may be claimed."""

    def launch(self, spec: ExecutionSpec) -> LaunchResult:
        """Start a claimed task."""

    def reconcile(self) -> None:
        """Look after the tasks that were started."""

    def close(self) -> None:
        """End them."""


def serve_tasks(kind: TaskType, executor: Executor, arguments: Sequence[str]) -> None:
    """Have `executor` run the tasks of one kind until the process is told to end.

    Args:
        arguments: those of `flower-superexec`.
    """
    substitute(AutoExecPlugin, "supported_task_types", frozenset({kind}))
    substitute(run_superexec, "get_executor", lambda *_, **__: executor)
    sys.argv = ["flower-superexec", *arguments]
    flower_superexec()


def connection(spec: ExecutionSpec) -> dict[str, Any]:
    """The arguments by which a task's process reaches its runtime."""
    return {
        "runtime_api_address": spec.runtime_api_address,
        "token": spec.token,
        "insecure": spec.insecure,
        "certificates": validate_and_resolve_root_certificates(
            spec.root_certificates_path, spec.insecure
        ),
        "parent_pid": spec.parent_pid,
        "runtime_dependency_install": False,
    }
