"""`python -m server.worker`: the coordinator's process that forks one process per run."""

from __future__ import annotations

import sys

from common import worker
from common.flower.executor import TaskType
from server import task

PRELOADED = ["server.app", "server.inbox", "server.callbacks.relay", "server.task"]

if __name__ == "__main__":
    worker.run(TaskType.SERVER_APP, task.run, PRELOADED, sys.argv[1:])
