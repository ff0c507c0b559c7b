"""A deployed process imports nothing of a simulation: no seeded noise, no poison, no Ray."""

from __future__ import annotations

import subprocess
import sys

import pytest

from client.worker import PRELOADED as PARTNER
from server.worker import PRELOADED as COORDINATOR

# Every process of a deployment: the modules that it is started with, and what these import later.
PROCESSES = {
    "partner's command": ["scripts.cli", "scripts.partner", "client.selfcheck", "client.ledger"],
    "partner's node": ["client.node"],
    "partner's worker": ["client.worker", "client.task"],
    "partner's message": [*PARTNER, "client.deployed", "client.personal", "client.policy"],
    "coordinator's command": ["scripts.cli", "scripts.coordinator", "server.control"],
    "coordinator's server": ["server.superlink"],
    "coordinator's worker": ["server.worker", "server.task"],
    "coordinator's run": [*COORDINATOR, "reporting.run", "reporting.card"],
}
PROGRAM = """
import importlib, sys
for module in sys.argv[1:]:
    importlib.import_module(module)
print(*(m for m in sys.modules if m.partition(".")[0] in ("simulation", "ray")))
"""


@pytest.mark.parametrize("process", PROCESSES)
def test_a_deployed_process_imports_nothing_of_a_simulation(process: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *PROCESSES[process]], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
