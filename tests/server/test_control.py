"""Which runs a server that was started ends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

from flwr.proto.control_pb2 import ListRunsResponse, StopRunResponse
from flwr.proto.run_pb2 import Run, RunStatus

from server.control import Control

STARTED = datetime(2026, 1, 1, 12, tzinfo=UTC)


def run(number: int, status: str, minutes: float | None) -> Run:
    """A run that began so many minutes after the server's start."""
    began = "" if minutes is None else (STARTED + timedelta(minutes=minutes)).isoformat()
    return Run(run_id=number, running_at=began, status=RunStatus(status=status))


def test_runs_of_the_last_server_are_ended_and_no_others() -> None:
    runs = {
        1: run(1, "running", -5),
        2: run(2, "running", 0.1),
        3: run(3, "pending", None),
        4: run(4, "finished", -5),
        5: run(5, "running", -5),
    }
    stopped: list[int] = []

    def stop(request: Any) -> StopRunResponse:
        stopped.append(request.run_id)
        # Number 5 has ended in the meantime.
        return StopRunResponse(success=request.run_id != 5)

    client: Any = SimpleNamespace(
        ListRuns=lambda request: ListRunsResponse(run_dict=runs), StopRun=stop
    )
    assert Control(client).end_orphans(STARTED) == [1]
    assert sorted(stopped) == [1, 5]
