"""Long-lived child processes: started together, restarted when one ends, ended together."""

from __future__ import annotations

import ctypes
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from common.files import private_directory, write_atomic

log = logging.getLogger(__name__)
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 60.0
# A child that has run this long is healthy: the next pause is short again.
HEALTHY_SECONDS = 60.0
END_SECONDS = 20.0
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Child:
    """One command, its environment, and what to look at when it ends by itself."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    advice: str = ""


def flower_environment(directory: Path) -> dict[str, str]:
    """Flower's settings for one identity: no telemetry, no installation, files in `directory`."""
    home, temporary = private_directory(directory / "flower"), private_directory(directory / "tmp")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("FLWR_", "FEDACCORD_SIM"))}
    return {
        **kept,
        "FLWR_HOME": str(home),
        "TMPDIR": str(temporary),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.5",
        "TOKENIZERS_PARALLELISM": "false",
        "MALLOC_ARENA_MAX": "2",
        # `python -m` would import from the current folder first.
        "PYTHONSAFEPATH": "1",
    }


def new_secret(directory: Path, name: str) -> Path:
    """A file with a fresh random secret, for this user's processes alone."""
    path = private_directory(directory) / name
    write_atomic(path, secrets.token_bytes(32), 0o600)
    return path


def free_port() -> int:
    """A TCP port of the loopback interface that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def supervise(
    children: Callable[[], Sequence[Child]], tick: Callable[[], None] | None = None
) -> int:
    """Keep what `children()` lists running until SIGTERM or SIGINT; 0 when ended so.

    When one ends, all are ended and started again after a pause that doubles up to a minute.
    `tick` is called about every two seconds while they run; its errors are logged.
    """
    stop = Event()
    before = {
        number: signal.signal(number, lambda *_: stop.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    pause = FIRST_PAUSE
    try:
        while not stop.is_set():
            began = time.monotonic()
            running: list[tuple[Child, subprocess.Popen[bytes]]] = []
            try:
                for child in children():
                    running.append((child, _start(child)))
                ended = _watch(running, stop, tick)
            finally:
                _end([process for _, process in running])
            if ended is None:
                break
            if time.monotonic() - began > HEALTHY_SECONDS:
                pause = FIRST_PAUSE
            log.error("%s; starting again in %.0f s", ended, pause)
            stop.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        return 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(
    running: Sequence[tuple[Child, subprocess.Popen[bytes]]],
    stop: Event,
    tick: Callable[[], None] | None,
) -> str | None:
    """Wait until a child ends (and say which) or until `stop` is set (None)."""
    ticked = 0.0
    while not stop.wait(0.2):
        for child, process in running:
            if process.poll() is not None:
                ended = f"{child.name} ended with code {process.returncode}"
                return f"{ended} ({child.advice})" if child.advice else ended
        if tick is not None and time.monotonic() - ticked > 2.0:
            ticked = time.monotonic()
            try:
                tick()
            except Exception as error:
                log.warning("%s", error)
    return None


def _start(child: Child) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        list(child.command),
        env=dict(child.environment),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=_end_with_parent if sys.platform == "linux" else None,
    )


def _end_with_parent() -> None:
    """Ask Linux to end this process when its parent dies, however that happens."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in reversed(processes):
        if process.poll() is None:
            process.terminate()
    end = time.monotonic() + END_SECONDS
    for process in processes:
        try:
            process.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            # It leads its own group: what it started ends with it.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
