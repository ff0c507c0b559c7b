"""MLflow: a SQLite store in the parent of the run directory, unless `tracking.uri` names one."""

from __future__ import annotations

import fcntl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.utils.time import get_current_time_millis

from common.config import TrackingConfig
from common.files import write_atomic

STORE = "mlflow.db"
RUN = "mlflow.run"
# MLflow's limit for a parameter value.
MOST_LETTERS = 500


class MLflow:
    """One run of MLflow for one run directory; a sweep's trials share store and experiment."""

    def __init__(self, tracking: TrackingConfig, directory: Path) -> None:
        self.tracking = tracking
        self.directory = directory
        self.uri = tracking.uri or f"sqlite:///{directory.parent / STORE}"
        self.run = ""

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Open the run; a run directory that is continued has the same one again."""
        # Two trials that create the store at the same time would both write its tables.
        with (self.directory.parent / ".mlflow.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self.client = MlflowClient(self.uri)
            found = self.client.get_experiment_by_name(self.tracking.project)
            artefacts = (self.directory.parent / "mlartifacts").as_uri()
            experiment = (
                found.experiment_id
                if found
                else self.client.create_experiment(
                    self.tracking.project, None if self.tracking.uri else artefacts
                )
            )
        known = self.directory / RUN
        if known.exists():
            self.run = known.read_text().strip()
            self.client.update_run(self.run, "RUNNING")
            return
        tags = {"group": self.tracking.group} if self.tracking.group else {}
        created = self.client.create_run(experiment, tags=tags, run_name=self.directory.name)
        self.run = created.info.run_id
        write_atomic(known, self.run + "\n")
        params = [Param(key, str(value)[:MOST_LETTERS]) for key, value in settings.items()]
        for first in range(0, len(params), 100):
            self.client.log_batch(self.run, params=params[first : first + 100])

    def log(self, number: int, figures: Mapping[str, float]) -> None:
        """Figures of a round."""
        now = get_current_time_millis()
        metrics = [Metric(name, value, now, number) for name, value in figures.items()]
        self.client.log_batch(self.run, metrics=metrics)

    def end(self, figures: Mapping[str, float], files: list[Path]) -> None:
        """Final figures and files."""
        now = get_current_time_millis()
        metrics = [Metric(name, value, now, 0) for name, value in figures.items()]
        self.client.log_batch(self.run, metrics=metrics)
        for path in files:
            self.client.log_artifact(self.run, str(path))
        self.client.set_terminated(self.run)
