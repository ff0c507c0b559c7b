"""The job with fedaccord, as `fedaccord simulate` runs it, with every round written down.

``python -m bench.peers.fedaccord_job FOLDER``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from bench.peers import job as jobs
from results.history import RoundRecord
from server.callbacks import Callback


class Progress(Callback):
    """Writes down the rounds as they end, and what training took when all have."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def round_ended(self, record: RoundRecord) -> None:
        """The accuracy of this round's model."""
        assert record.accuracy is not None
        jobs.evaluated(self.folder, record.round, record.accuracy)

    def finished(self, results: dict[str, Any]) -> None:
        """The means over all messages, each counted as one."""
        cost = results["cost"]
        messages = len(results["final"]["partners"]) * len(results["rounds"])
        for _ in range(messages):
            jobs.trained(
                self.folder,
                (cost["train_seconds"] + cost["frozen_seconds"]) / messages,
                int(cost["bytes_up_per_partner_round"]),
            )


def main() -> None:
    """Run the job of the folder that is named."""
    from bench.federation import overrides
    from results.run_directory import settle
    from scripts.compose import compose_config
    from simulation.prepare import ENVIRONMENT, prepare
    from simulation.run import simulate

    os.environ.update(ENVIRONMENT)
    folder = Path(sys.argv[1])
    job = jobs.read(folder)
    given = [
        *overrides(job.rounds, len(job.partners)),
        f"train.batch_size={job.batch}",
        f"run.cache_dir={folder / 'cache'}",
    ]
    directory = folder / "run"
    config = prepare(settle(compose_config(given), directory))
    if not simulate(config, [Progress(folder)]):
        raise SystemExit("interrupted")
    print(json.dumps(json.loads((directory / "results.json").read_text())["cost"]))


if __name__ == "__main__":
    main()
