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
# Where rows come from is nobody's business but the coordinator's; paths say nothing elsewhere.
LEFT_OUT = ("data", "tracking")
PATHS = ("dir", "resume", "cache_dir")


class Service(Protocol):
    """Where a run's figures go."""

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Open the run, or the same one again after it was cut off."""

    def log(self, number: int, figures: Mapping[str, float]) -> None:
        """Figures of a round."""

    def end(self, figures: Mapping[str, float], files: list[Path]) -> None:
        """Final figures and files; nothing follows."""


class Tracker(Callback):
    """Tells a service; one that fails is given up, and the run goes on.

    What partners measure of a round's model arrives with the next round, and is told then.
    """

    def __init__(self, config: Config, service: Service | None = None) -> None:
        self.config = config
        self.place = Path(str(config.run.dir))
        self.service: Service | None = service or _service(config, self.place)
        self.told: set[tuple[int, str]] = set()
        self.last: RoundRecord | None = None

    def started(self, partners: list[str], rounds: int, first_round: int) -> None:
        """Open the run with its settings."""
        self._do("begin", {**settings(self.config), "partners": len(partners)})

    def round_ended(self, record: RoundRecord) -> None:
        """Tell what is known of this round, and what has become known of the one before."""
        for row in filter(None, (self.last, record)):
            self._tell(row.row())
        self.last = record

    def finished(self, results: dict[str, Any]) -> None:
        """Tell what is still missing, the final figures and the files."""
        for row in results["rounds"]:
            self._tell(row)
        final, cost = results["final"], results["cost"]
        figures = {f"final/{k}": v for k, v in final.items() if isinstance(v, int | float)}
        figures |= {f"gaps/{k}": v for k, v in final["gaps"].items() if v is not None}
        figures |= {f"cost/{k}": v for k, v in cost.items() if isinstance(v, int | float)}
        figures["final/epsilon"] = final["epsilon"]["max"]
        files = [path for name in FILES if (path := self.place / name).exists()]
        self._do("end", figures, files)

    def _tell(self, row: Mapping[str, Any]) -> None:
        number = int(row["round"])
        new = {
            name: float(value)
            for name, value in row.items()
            if name != "round" and value is not None and (number, name) not in self.told
        }
        if new:
            self.told |= {(number, name) for name in new}
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
    """What was chosen, flat: `privacy.epsilon`; nothing of the data but its source."""
    tree = asdict(config)
    for key in PATHS:
        del tree["run"][key]
    found: dict[str, Any] = {"config_hash": config_hash(config), "data.source": config.data.source}

    def walk(prefix: str, branch: Mapping[str, Any]) -> None:
        for key, value in branch.items():
            if isinstance(value, Mapping):
                walk(f"{prefix}{key}.", value)
            else:
                found[f"{prefix}{key}"] = value

    walk("", {key: value for key, value in tree.items() if key not in LEFT_OUT})
    return found


def check_tracking(tracking: TrackingConfig) -> None:
    """Raises UserError when the service that was chosen is not installed."""
    name = tracking.service
    if name != "none" and find_spec(name) is None:
        raise UserError(f"tracking: {name} is not installed: pip install 'fedaccord[{name}]'")


def _service(config: Config, place: Path) -> Service:
    if config.tracking.service == "wandb":
        from server.callbacks.wandb import Wandb

        return Wandb(config.tracking, place)
    from server.callbacks.mlflow import MLflow

    return MLflow(config.tracking, place)
