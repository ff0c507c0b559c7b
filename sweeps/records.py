"""The files of a sweep: one document, and one line for each event of a trial.

`DIR/sweep.json` describes what the command asked for, `DIR/trials.jsonl` the state of each trial,
and `DIR/N/` is the run directory of trial N. Trials can run in processes of their own, so a line is
appended and flushed at once. The newest line of a trial is the valid one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from common.errors import UserError
from common.files import append_lines, write_atomic
from sweeps.objectives import measures

SCHEMA_VERSION = 1
DOCUMENT = "sweep.json"
TRIALS = "trials.jsonl"
State = Literal["running", "finished", "same", "pruned", "failed"]
DONE: frozenset[str] = frozenset({"finished", "same", "pruned"})


@dataclass(frozen=True)
class Trial:
    """One configuration of a sweep.

    Attributes:
        number: Its place in the sweep, from 0.
        state: Whether it runs, or how it ended.
        overrides: Its Hydra overrides.
        composed: The hash of its configuration before the data fill it in.
        same_as: An earlier trial with the same configuration, and therefore the same results.
        reason: Why it failed or was pruned.
        seconds: The duration of its last start.
        time: When this line was written, ISO 8601, UTC.
    """

    number: int
    state: State
    overrides: list[str]
    composed: str = ""
    same_as: int | None = None
    reason: str = ""
    seconds: float = 0.0
    time: str = ""


@dataclass
class Document:
    """What the command asked for.

    Attributes:
        arguments: The command's overrides, without the sweep's directory.
        identity: A hash of what will be run; the same command continues an unfinished sweep.
        objectives: Names of `sweeps.objectives`; the first one selects the best trial.
        swept: The keys that differ between trials.
        planned: The number of trials.
        schema_version: The version of the file's form.
    """

    arguments: list[str]
    identity: str
    objectives: list[str]
    swept: list[str]
    planned: int
    schema_version: int = SCHEMA_VERSION


@dataclass
class Sweep:
    """A sweep's directory at one moment."""

    directory: Path
    document: Document
    trials: dict[int, Trial]

    @property
    def ended(self) -> bool:
        """Whether every planned trial has ended."""
        done = [t for t in self.trials.values() if t.state in DONE or t.state == "failed"]
        return len(done) >= self.document.planned

    def varied(self, trial: Trial) -> list[str]:
        """The trial's overrides of swept keys."""
        return [o for o in trial.overrides if override_key(o) in self.document.swept]

    def results(self, number: int) -> dict[str, Any] | None:
        """The content of a trial's results.json; None unless it, or its equal, is finished."""
        trial = self.trials[number]
        place = self.directory / str(number if trial.same_as is None else trial.same_as)
        return read_results(place) if trial.state in ("finished", "same") else None

    def twin(self, composed: str, other_than: int) -> Trial | None:
        """A finished trial with the same configuration."""
        for trial in self.trials.values():
            if (
                trial.composed == composed
                and trial.number != other_than
                and trial.state == "finished"
                and (self.directory / str(trial.number) / "results.json").exists()
            ):
                return trial
        return None

    @cached_property
    def measured(self) -> dict[int, dict[str, float | None]]:
        """The objectives of every finished trial, by name."""
        found = {number: self.results(number) for number in sorted(self.trials)}
        return {number: measures(r) for number, r in found.items() if r is not None}


def override_key(override: str) -> str:
    """`strategy/robust` of `+strategy/robust=median`."""
    return override.partition("=")[0].lstrip("+~")


def read_results(place: Path) -> dict[str, Any] | None:
    """The content of results.json of a run directory; None where there is none."""
    try:
        found: dict[str, Any] = json.loads((place / "results.json").read_text())
    except (OSError, ValueError):
        return None
    return found


def write_document(directory: Path, document: Document) -> None:
    """Write sweep.json."""
    write_atomic(directory / DOCUMENT, json.dumps(asdict(document), indent=2) + "\n")


def tell(directory: Path, trial: Trial) -> None:
    """Append the new state of a trial."""
    append_lines(directory / TRIALS, asdict(trial))


def read_sweep(directory: Path) -> Sweep:
    """Read a sweep's directory.

    Raises:
        UserError: The directory holds no sweep, or one of another version.
    """
    try:
        found = json.loads((directory / DOCUMENT).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{directory}: holds no sweep; name the folder with {DOCUMENT}") from error
    if not isinstance(found, dict) or found.get("schema_version") != SCHEMA_VERSION:
        raise UserError(
            f"{directory}: holds a sweep of another version of fedaccord; use that version"
        )
    return Sweep(directory, Document(**_known(Document, found)), _trials(directory / TRIALS))


def _trials(path: Path) -> dict[int, Trial]:
    """The newest line of every trial; an incomplete line is ignored."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return {}
    found: dict[int, Trial] = {}
    for line in lines:
        if line.endswith(b"\n"):
            try:
                trial = Trial(**_known(Trial, json.loads(line)))
            except ValueError:
                continue
            found[trial.number] = trial
    return dict(sorted(found.items()))


def _known(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    names = {f.name for f in fields(kind)}
    return {key: value for key, value in values.items() if key in names}
