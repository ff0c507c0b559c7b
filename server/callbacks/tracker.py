"""Settings, rounds and files of a run for Weights & Biases or MLflow."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from common.config import Config, TrackingConfig, config_hash
from common.errors import UserError
from results.history import RoundRecord
from server.callbacks.base import Callback

log = logging.getLogger(__name__)
FILES = ("config.yaml", "results.json", "rounds.csv", "report.html")
# Where rows come from concerns the coordinator alone; paths mean nothing on other machines.
LEFT_OUT = ("data", "tracking")
PATHS = ("dir", "resume", "cache_dir")


class Service(Protocol):
    """A service that records the figures of one run."""

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Open the run, or the same one again after it was cut off."""

    def log(self, number: int, figures: Mapping[str, float]) -> None:
        """Figures of a round."""

    def end(self, figures: Mapping[str, float], files: list[Path]) -> None:
        """Final figures and files; nothing follows."""


class Tracker(Callback):
    """Sends a run's settings, figures and files to a service.

    When the service fails, tracking stops and the run goes on.  Partners measure a round's model in
    the next round, and these figures are sent then.
    """

    def __init__(self, config: Config, service: Service | None = None) -> None:
        self.config = config
        self.directory = Path(str(config.run.dir))
        self.service: Service | None = service or _service(config, self.directory)
        self.sent: set[tuple[int, str]] = set()
        self.last: RoundRecord | None = None

    def started(self, partners: list[str], rounds: int, first_round: int) -> None:
        """Open the run with its settings."""
        self._do("begin", {**settings(self.config), "partners": len(partners)})

    def round_ended(self, record: RoundRecord) -> None:
        """Send the figures of this round, and those of the round before that are new."""
        for row in filter(None, (self.last, record)):
            self._send(row.row())
        self.last = record

    def finished(self, results: dict[str, Any]) -> None:
        """Send the figures that are still missing, the final ones and the files."""
        for row in results["rounds"]:
            self._send(row)
        final, cost = results["final"], results["cost"]
        figures = {f"final/{k}": v for k, v in final.items() if isinstance(v, int | float)}
        figures |= {f"gaps/{k}": v for k, v in final["gaps"].items() if v is not None}
        figures |= {f"cost/{k}": v for k, v in cost.items() if isinstance(v, int | float)}
        figures["final/epsilon"] = final["epsilon"]["max"]
        files = [path for name in FILES if (path := self.directory / name).exists()]
        self._do("end", figures, files)

    def _send(self, row: Mapping[str, Any]) -> None:
        number = int(row["round"])
        new = {
            name: float(value)
            for name, value in row.items()
            if name != "round" and value is not None and (number, name) not in self.sent
        }
        if new:
            self.sent |= {(number, name) for name in new}
            self._do("log", number, new)

    def _do(self, call: str, *arguments: Any) -> None:
        if self.service is None:
            return
        try:
            getattr(self.service, call)(*arguments)
        except Exception as error:
            # Hours of training are worth more than their curves.
            self.service = None
            log.warning("tracking stopped (%s); the run goes on", type(error).__name__)


def settings(config: Config) -> dict[str, Any]:
    """The run's settings by full key, such as `privacy.epsilon`; of the data only the source."""
    tree = asdict(config)
    for key in PATHS:
        del tree["run"][key]
    flat: dict[str, Any] = {"config_hash": config_hash(config), "data.source": config.data.source}

    def walk(prefix: str, branch: Mapping[str, Any]) -> None:
        for key, value in branch.items():
            if isinstance(value, Mapping):
                walk(f"{prefix}{key}.", value)
            else:
                flat[f"{prefix}{key}"] = value

    walk("", {key: value for key, value in tree.items() if key not in LEFT_OUT})
    return flat


def check_tracking(tracking: TrackingConfig) -> None:
    """Raises UserError when the service that was chosen is not installed."""
    name = tracking.service
    if name != "none" and find_spec(name) is None:
        raise UserError(
            f"tracking.service: {name} is not installed; pip install 'fedaccord[{name}]'"
        )


def _service(config: Config, directory: Path) -> Service:
    if config.tracking.service == "wandb":
        from server.callbacks.wandb import Wandb

        return Wandb(config.tracking, directory)
    from server.callbacks.mlflow import MLflow

    return MLflow(config.tracking, directory)
