"""A run directory as the server leaves it, made in milliseconds by the server's own writers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from common.config import Config, config_hash
from common.config_file import write_config
from common.evaluation import Evaluation
from common.files import append_lines, write_atomic
from common.messages import Report
from results.audit import Audit
from results.history import History, RoundRecord, rounds_csv
from results.schema import results, results_text
from server import checkpoint as checkpoints
from server.checkpoint import Checkpoint
from strategies.records import Decision, refused

PARTNERS = ("a", "b", "c")


def config() -> Config:
    found = Config()
    found.run.rounds = 3
    found.run.seed = 5
    return found


def report(name: str, seed: int = 0) -> Report:
    counts = np.random.default_rng([seed, ord(name)]).integers(20, 60, (2, 2)).astype(float)
    return Report(
        name,
        counts.tolist(),
        {"g=x": counts.tolist()},
        loss=float("nan") if name == "c" else 0.5,
        examples=100,
        epsilon=1.5,
        delta=1e-5,
    )


def evaluation() -> Evaluation:
    groups = {
        "g=x": np.array([[40.0, 9.0], [12.0, 39.0]]),
        "g=y": np.array([[30.0, 19.0], [8.0, 43.0]]),
    }
    return Evaluation(groups["g=x"] + groups["g=y"], groups, 0.4, 200)


class SmallRun:
    """Drives an Audit as the server does; every step can be left out or repeated."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = config()
        directory.mkdir(parents=True, exist_ok=True)
        write_config(self.config, directory / "config.yaml")
        self.audit = Audit(directory, self.config)
        found = checkpoints.latest(directory / "checkpoints")
        if found is None:
            found = Checkpoint(
                0, "id", config_hash(self.config), {"w": torch.zeros(4)}, {}, History()
            )
            checkpoints.save(directory / "checkpoints", found, keep=2)
        self.current = found
        self._forget(found.round)
        self.audit.started("id", found.round, PARTNERS)

    def _forget(self, last: int) -> None:
        path = self.directory / "decisions.jsonl"
        if path.exists():
            lines = path.read_bytes().splitlines(keepends=True)
            write_atomic(path, b"".join(x for x in lines if json.loads(x)["round"] <= last))

    def round(self, logged: bool = True) -> None:
        number = self.current.round + 1
        history = self.current.history
        if history.rounds:
            history.rounds[-1].measure_partners([report(name, number) for name in PARTNERS])
        decisions = [
            Decision("a", number, "merged", "Merged.", weight_given=0.75),
            Decision("b", number, "merged", "Merged.", weight_given=0.25),
            refused("c", number, "its \u2028 norm"),
        ]
        for decision in decisions:
            append_lines(self.directory / "decisions.jsonl", decision.to_json())
        history.rounds.append(RoundRecord(number, 0.5, 0.6, epsilon_max=1.0, replies=2, refused=1))
        for name, weight in (("a", 0.75), ("b", 0.25)):
            history.weight_sums[name] = history.weight_sums.get(name, 0.0) + weight
        history.refused_rounds["c"] = history.refused_rounds.get("c", 0) + 1
        self.current = Checkpoint(
            number,
            "id",
            config_hash(self.config),
            {"w": torch.full((4,), float(number))},
            {},
            history,
        )
        checkpoints.save(self.directory / "checkpoints", self.current, keep=2)
        if logged:
            self.audit.round_ended(number)

    def finish(self, written: bool = True) -> None:
        reports = [report(name) for name in PARTNERS]
        history = self.current.history
        history.rounds[-1].measure_partners(reports)
        history.cost.wall_seconds += 2.5
        (self.directory / "model").mkdir(exist_ok=True)
        (self.directory / "model" / "weights").write_bytes(b"weights")
        write_atomic(self.directory / "rounds.csv", rounds_csv(history))
        text = results_text(
            results(history, reports, evaluation(), self.config.run.seed, config_hash(self.config))
        )
        self.audit.finished(text, reports, evaluation(), history.cost)
        if written:
            write_atomic(self.directory / "results.json", text)


def small_run(directory: Path) -> Path:
    """A finished run of three rounds."""
    run = SmallRun(directory)
    for _ in range(3):
        run.round()
    run.finish()
    return directory
