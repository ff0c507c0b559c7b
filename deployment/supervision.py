"""Service processes that start together, restart when one of them ends, and end together."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Event

log = logging.getLogger(__name__)
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 60.0
# After a run of this length the next pause is short again.
HEALTHY_SECONDS = 60.0
END_SECONDS = 20.0
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Child:
    """One process of a service.

    Attributes:
        name: Its name in log entries.
        command: The program and its arguments.
        environment: Its whole environment.
        advice: What the log recommends when the process ends unexpectedly.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    advice: str = ""


def supervise(
    children: Callable[[], Sequence[Child]], tick: Callable[[], None] | None = None
) -> int:
    """Keep processes running until SIGTERM or SIGINT arrives.

    When one process ends, all of them are ended and, after a pause, started again. The pause
    doubles with each failure, up to a minute.

    Args:
        children: Lists the processes; called before every start.
        tick: Called about every two seconds while they run. Its errors are logged.

    Returns:
        0, the exit code of an orderly end.
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
            log.error("%s; restarting in %.0f s", ended, pause)
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
    """Wait until a process ends, and describe that; None when `stop` was set first."""
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
