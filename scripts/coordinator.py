"""`fedaccord server start`, `submit`, `status` and `stop`: the coordinator's commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from common.errors import UserError
from deployment.coordinator import Coordinator, load_coordinator
from scripts.console import PlainConsole

INTERRUPTED = 130


def submit(own: Coordinator, overrides: Sequence[str]) -> int:
    """Submit a run and show its progress until it ends; Ctrl-C leaves it running.

    Args:
        own: The coordinator's settings.
        overrides: Hydra overrides.

    Returns:
        The exit code: 0 when the run finished, 130 when its display was interrupted.

    Raises:
        UserError: A setting is wrong, no server answers, or the run ended early.
    """
    from deployment import submission
    from scripts.configure import configure
    from scripts.progress import Terminal

    config = configure(overrides)
    directory = submission.prepare(config)
    console = PlainConsole()
    console.print(f"run directory: {directory}", soft_wrap=True)
    numbers: list[int] = []

    def submitted(number: int) -> None:
        numbers.append(number)
        console.print(f"run {number}")

    try:
        with Terminal(console, config.private) as terminal:
            submission.run(own, config, terminal, submitted)
    except KeyboardInterrupt:
        for number in numbers:
            console.print(
                f"run {number} continues; stop it with: fedaccord stop {own.path} {number}",
                soft_wrap=True,
            )
        return INTERRUPTED
    console.print(f"model: {directory / 'model'}", soft_wrap=True)
    console.print(f"report: {directory / 'report.html'}", soft_wrap=True)
    return 0


def status(own: Coordinator) -> int:
    """Print the registered partners, whether they are connected, and the latest runs."""
    from server.control import connect

    console = PlainConsole()
    partners, runs = Table("partner", "connected"), Table("run", "status", "details")
    with connect(own.settings.control_port, own.authority) as control:
        for node in control.nodes():
            partners.add_row(node.name, "yes" if node.online else "no")
        for run in control.runs():
            details = run.details.strip().splitlines()[:1]
            runs.add_row(str(run.id), f"{run.status} {run.outcome}".strip(), *details)
    console.print(partners)
    console.print(runs)
    return 0


def stop(own: Coordinator, number: str) -> int:
    """End a run; `fedaccord submit … run.resume=…` continues it from its last checkpoint.

    Raises:
        UserError: `number` is not the number of a run, or no server answers.
    """
    from server.control import connect

    if not number.isdecimal():
        raise UserError(f"RUN: must be the number of a run, not '{number}'; see `fedaccord status`")
    with connect(own.settings.control_port, own.authority) as control:
        control.stop(int(number))
    print(f"The server ends run {number}.")
    return 0


def main(command: str, path: str, rest: Sequence[str]) -> int:
    """Run one of the coordinator's commands.

    Raises:
        UserError: `coordinator.yaml` is wrong, or the command cannot be carried out.
    """
    own = load_coordinator(Path(path))
    if command == "server":
        from deployment.server_service import serve

        return serve(own)
    if command == "submit":
        return submit(own, rest)
    if command == "stop":
        return stop(own, rest[0])
    return status(own)
