"""Service processes are restarted together, after a pause that grows, and end together."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from deployment import supervision
from deployment.supervision import Child, supervise

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
FAIL = [sys.executable, "-c", "import sys; sys.exit(3)"]


def _sleeps(process: psutil.Process) -> bool:
    """Whether it is one of ours; a process that has just ended is none."""
    try:
        return process.cmdline() == SLEEP
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False


def test_all_start_again_when_one_ends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervision, "FIRST_PAUSE", 0.05)
    caplog.set_level(logging.ERROR)
    starts = 0

    def children() -> list[Child]:
        nonlocal starts
        starts += 1
        if starts == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        environment = dict(os.environ)
        return [
            Child("steady", SLEEP, environment),
            Child("weak", FAIL, environment, "look at its log"),
        ]

    before = signal.getsignal(signal.SIGTERM)
    assert supervise(children) == 0
    assert starts == 3
    assert signal.getsignal(signal.SIGTERM) is before
    words = [record.getMessage() for record in caplog.records]
    assert words == ["weak ended with code 3 (look at its log); restarting in 0 s"] * 2
    assert [record.args[1] for record in caplog.records] == [0.05, 0.1]  # type: ignore[index]
    assert not [p for p in psutil.Process().children() if _sleeps(p)]


def test_a_failing_tick_is_logged_and_the_service_goes_on(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1
        if ticks == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        raise ValueError("no server answers")

    assert supervise(lambda: [Child("steady", SLEEP, dict(os.environ))], tick) == 0
    assert ticks == 2
    assert caplog.text.count("no server answers") == 2
