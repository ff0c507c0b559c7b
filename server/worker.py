"""`python -m server.worker`: the coordinator's process that forks one process a run."""

from __future__ import annotations

import sys

from flwr.supercore.constant import TaskType

from common import worker
from server import task

PRELOADED = ["server.app", "server.inbox", "server.callbacks.relay", "server.task"]

if __name__ == "__main__":
    worker.run(TaskType.SERVER_APP, task.run, PRELOADED, sys.argv[1:])
