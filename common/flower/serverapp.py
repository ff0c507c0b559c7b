"""Flower's ServerApp process: it fetches one run, carries it out, and exits."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from queue import Queue
from typing import Any

from flwr.app import Context
from flwr.common.config import get_fab_config
from flwr.serverapp import Grid
from flwr.supercore.logger import mirror_output_to_queue, restore_output

from common.flower.executor import ExecutionSpec, connection
from common.flower.substitution import substitute


def carry_out_run(
    spec: ExecutionSpec,
    check: Callable[[bytes], None],
    run: Callable[[Grid, Context], None],
    grid: type[Grid],
) -> None:
    """Carry out the run of a task with `run`, and run nothing that was submitted with it.

    Args:
        check: raises when the submitted app bundle is not acceptable; only the configuration in the
            bundle is read.
        grid: what takes the place of Flower's `HttpGrid`.
    """
    # The package hides its module of the same name behind a function.
    flower: Any = importlib.import_module("flwr.superlink.runtime.run_serverapp")
    logs: Queue[str | None] = Queue()
    mirror_output_to_queue(logs)
    checked: list[bytes] = []

    def install(content: bytes, **_: object) -> Path:
        check(content)
        checked.append(content)
        return Path()

    def carry_out(grid: Grid, context: Context, **_: object) -> Context:
        run(grid, context)
        return context

    # The places where Flower would unpack and import what was submitted.
    substitute(flower, "install_from_fab", install)
    substitute(flower, "get_project_config", lambda _: get_fab_config(checked[-1]))
    substitute(flower, "get_fused_config_from_dir", lambda _, override: dict(override))
    substitute(flower, "run_", carry_out)
    substitute(flower, "HttpGrid", grid)
    flower.run_serverapp(log_queue=logs, **connection(spec))
    restore_output()
