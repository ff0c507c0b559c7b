"""`python -m client.worker`: the partner's process that forks one process per message."""

from __future__ import annotations

import sys

from client import task
from common import worker
from common.flower.executor import TaskType

PRELOADED = ["client.app", "client.task"]

if __name__ == "__main__":
    worker.run(TaskType.CLIENT_APP, task.run, PRELOADED, sys.argv[1:])
