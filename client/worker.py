"""`python -m client.worker`: the partner's process that forks one process a message."""

from __future__ import annotations

import sys

from flwr.supercore.constant import TaskType

from client import task
from common import worker

if __name__ == "__main__":
    worker.run(TaskType.CLIENT_APP, task.run, ["client.app", "client.task"], sys.argv[1:])
