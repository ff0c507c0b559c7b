"""What a report is made from: the files of a finished run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.config import Config, malicious
from common.config_file import read_config
from common.errors import UserError
from results.audit import NAME, Entry, decision_lines, parse


@dataclass(frozen=True)
class Run:
    """One finished run.

    Attributes:
        results: what results.json holds (docs/results.md).
        decisions: the lines of decisions.jsonl.
        entries: the audit log, empty where it cannot be read.
        attackers: who attacked; nobody outside a simulation.
    """

    config: Config
    results: dict[str, Any]
    decisions: list[dict[str, Any]]
    entries: list[Entry]
    simulated: bool
    attackers: list[str]

    @property
    def final(self) -> dict[str, Any]:
        """The figures of the delivered model."""
        found: dict[str, Any] = self.results["final"]
        return found

    @property
    def epsilon_cap(self) -> float:
        """What a text at a partner may pay in this run: for training, or for metrics."""
        return max(self.config.privacy.epsilon, self.config.metrics_epsilon)

    @property
    def everyone(self) -> list[str]:
        """All partners that were ready at any start, and all that were measured."""
        started = [e.body["partners"] for e in self.entries if e.kind == "started"]
        return sorted({*self.final["partners"], *(name for names in started for name in names)})


def read_run(directory: Path) -> Run:
    """Read a run directory.

    Raises UserError when the run is not finished, or a file is missing or cannot be read.
    """
    if not (directory / "results.json").exists():
        raise UserError(f"{directory}: there is no results.json; the run is not finished")
    try:
        config = read_config(directory / "config.yaml")
        results = json.loads((directory / "results.json").read_text())
        lines = decision_lines((directory / "decisions.jsonl").read_bytes())
        decisions = [json.loads(line) for number in sorted(lines) for line in lines[number]]
        entries = _entries(directory / NAME)
        return Run(
            config,
            results,
            decisions,
            entries,
            # Only where the partners are this user's own do their ledgers lie in the directory.
            simulated=(directory / "partners").is_dir(),
            attackers=malicious(config, sorted(results["final"]["partners"])),
        )
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{directory}: does not hold a run of this version ({type(error).__name__})"
        ) from error


def _entries(path: Path) -> list[Entry]:
    try:
        return parse(path.read_bytes())
    except (OSError, ValueError):
        return []
