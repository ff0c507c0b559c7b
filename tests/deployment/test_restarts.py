"""The supervisor of long-lived processes, with real ones."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from deployment import supervision
from deployment.environment import flower_environment
from deployment.supervision import Child, supervise

# Writes a line with its process id, and then ends with code 3 if it is the first to do so.
FAILS_ONCE = """
import os, sys, time
with open(sys.argv[1], "a") as file:
    file.write(f"{os.getpid()}\\n")
if len(open(sys.argv[1]).readlines()) == 1:
    sys.exit(3)
time.sleep(600)
"""
STAYS = """
import os, sys, time
with open(sys.argv[1], "a") as file:
    file.write(f"{os.getpid()}\\n")
time.sleep(600)
"""


def child(name: str, program: str, path: Path, advice: str = "") -> Child:
    return Child(name, [sys.executable, "-c", program, str(path)], os.environ, advice)


def started(path: Path) -> list[int]:
    """The ids of the processes that have begun."""
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_when_one_ends_all_are_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervision, "FIRST_PAUSE", 0.05)
    failing, steady = tmp_path / "failing", tmp_path / "steady"
    generations: list[int] = []

    def children() -> list[Child]:
        generations.append(len(generations))
        return [
            child("steady", STAYS, steady),
            child("failing", FAILS_ONCE, failing, "look at its log"),
        ]

    def tick() -> None:
        if len(started(failing)) == 2 and started(steady)[-1:] != started(steady)[:1]:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with caplog.at_level(logging.ERROR):
        assert supervise(children, tick) == 0
    assert generations == [0, 1]
    assert "failing ended with code 3 (look at its log); restarting" in caplog.text
    # Of the first generation and of the second: nobody is left.
    assert len(started(failing)) == 2
    assert not [pid for pid in (*started(failing), *started(steady)) if psutil.pid_exists(pid)]
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_pause_grows_while_it_keeps_failing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervision, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(supervision, "LONGEST_PAUSE", 0.03)
    pauses: list[float] = []
    whole = supervision.log.error

    def told(text: str, *arguments: object) -> None:
        whole(text, *arguments)
        pauses.append(float(str(arguments[-1])))
        if len(pauses) == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(supervision.log, "error", told)
    command = [sys.executable, "-c", "raise SystemExit(1)"]
    assert supervise(lambda: [Child("failing", command, os.environ)]) == 0
    assert pauses == [0.01, 0.02, 0.03, 0.03]


def test_what_fails_in_a_tick_is_logged_and_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "steady"
    ticks: list[int] = []

    def tick() -> None:
        ticks.append(1)
        if len(ticks) == 1:
            raise OSError("no answer")
        os.kill(os.getpid(), signal.SIGTERM)

    assert supervise(lambda: [child("steady", STAYS, path)], tick) == 0
    assert "no answer" in caplog.text
    assert len(ticks) == 2
    assert len(started(path)) <= 1


def test_processes_of_an_identity_import_nothing_from_the_current_folder(tmp_path: Path) -> None:
    environment = flower_environment(tmp_path / "state")
    assert environment["PYTHONSAFEPATH"] == "1"
    assert not [name for name in environment if name.startswith("FEDACCORD_SIM")]
