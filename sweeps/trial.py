"""One trial of a sweep: run, continued, or recognised as one that was run before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

from common.config import Config
from results.run_directory import RESULTS, claim, settle
from server.callbacks import Callback
from simulation.prepare import complete
from sweeps.objectives import measures
from sweeps.pruning import pruner_of
from sweeps.records import State, Trial, read_results, read_sweep, tell


@dataclass(frozen=True)
class Outcome:
    """What a launcher returns to the sweeper.

    Attributes:
        number: The number of the trial.
        state: What has become of it.
        values: Every objective's value, by name; empty unless there are results.
        reason: Why it failed or was pruned.
    """

    number: int
    state: State
    values: dict[str, float | None]
    reason: str = ""


def known(sweep: Path, begun: Trial) -> Trial | None:
    """The trial as it ended in an earlier command, or as an equal trial ended.

    Args:
        sweep: The folder of the sweep.
        begun: The trial, with the hash of its configuration.

    Returns:
        The ended trial; None when it must be run.
    """
    found = read_sweep(sweep)
    before = found.trials.get(begun.number)
    if before and before.composed == begun.composed and before.state == "finished":
        return before if read_results(sweep / str(begun.number)) else None
    twin = found.twin(begun.composed, begun.number)
    return twin and replace(begun, state="same", same_as=twin.number)


def prepared(sweep: Path, number: int, config: Config) -> Config:
    """The whole configuration of a trial, with its run directory inside the sweep's folder.

    Raises:
        UserError: A setting does not fit the data.
    """
    config = settle(config, sweep / str(number))
    tracking = replace(config.tracking, group=config.tracking.group or sweep.name)
    return complete(replace(config, tracking=tracking))


def run(
    sweep: Path,
    config: Config,
    begun: Trial,
    sweeper: Mapping[str, Any],
    callbacks: Sequence[Callback],
) -> Trial:
    """Run or continue a trial.

    Args:
        sweep: The folder of the sweep.
        config: The trial's whole configuration.
        begun: The trial in the state `running`.
        sweeper: Hydra's configuration of the sweeper.
        callbacks: Receive the run's events.

    Returns:
        The ended trial; `begun` itself when it was stopped from outside.

    Raises:
        UserError: The run cannot be carried out.
    """
    from simulation.run import simulate

    directory = sweep / str(begun.number)
    if not (directory / RESULTS).exists():
        claim(directory, config)
        tell(sweep, begun)
        stop = Event()
        pruner = pruner_of(sweeper, sweep, begun.number, config.run.rounds, stop)
        everyone = [*callbacks, *([] if pruner is None else [pruner])]
        finished = simulate(config, everyone, stop, keep_workers=True)
        if pruner is not None and pruner.pruned:
            return replace(begun, state="pruned", reason=pruner.reason)
        if not finished:
            return begun
    return replace(begun, state="finished")


def outcome(sweep: Path, trial: Trial) -> Outcome:
    """What an ended trial returns to the sweeper."""
    place = sweep / str(trial.number if trial.same_as is None else trial.same_as)
    results = read_results(place) if trial.state in ("finished", "same") else None
    values = {} if results is None else measures(results)
    return Outcome(trial.number, trial.state, values, trial.reason)


def line(trial: Trial, values: Mapping[str, float | None]) -> str:
    """One line about an ended trial, for the terminal."""
    accuracy = values.get("accuracy")
    shown = "" if accuracy is None else f", accuracy {100 * accuracy:.1f} %"
    same = "" if trial.same_as is None else f" as trial {trial.same_as}"
    why = f": {trial.reason}" if trial.reason else ""
    return f"trial {trial.number} {trial.state}{same}{shown}, {trial.seconds:.1f} s{why}"


def now() -> str:
    """The present moment, ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
