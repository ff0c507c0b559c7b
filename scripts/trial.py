"""One trial of a sweep: what a Hydra launcher calls, in this process or in one of its own."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from common.config import Config, config_hash, validate
from common.errors import described
from scripts.compose import resolved
from scripts.console import PlainConsole
from scripts.simulate import ENVIRONMENT, claim, complete, settle
from server.callbacks import Callback
from sweeps.objectives import measures
from sweeps.pruning import Pruner, pruner_of
from sweeps.records import State, Trial, read_results, read_sweep, tell

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What a launcher carries back to the sweeper."""

    number: int
    state: State
    values: dict[str, float | None]
    reason: str = ""


def run_trial(tree: DictConfig) -> Outcome:
    """Run, continue or look up the trial that Hydra has composed; its failure is an outcome.

    Raises KeyboardInterrupt when it was told to stop: the sweep ends, and can be continued.
    """
    os.environ.update(ENVIRONMENT)
    hydra = HydraConfig.get()
    sweep = Path(hydra.sweep.dir).absolute()
    begun = Trial(
        number=int(hydra.job.num),
        state="running",
        overrides=[str(o) for o in hydra.overrides.task],
        time=_now(),
    )
    console = PlainConsole(soft_wrap=True)
    clock = time.monotonic()
    try:
        config = validate(resolved(tree))
        begun = replace(begun, composed=config_hash(config))
        ended = _known(sweep, begun) or _run(sweep, config, begun, console)
    except Exception as error:
        ended = replace(begun, state="failed", reason=described(error))
    else:
        if ended.state == "running":
            raise KeyboardInterrupt
    if ended.state != "finished" or not ended.seconds:
        ended = replace(ended, seconds=time.monotonic() - clock, time=_now())
        tell(sweep, ended)
    values = _values(sweep, ended)
    console.print(_line(ended, values))
    return Outcome(ended.number, ended.state, values, ended.reason)


def _known(sweep: Path, begun: Trial) -> Trial | None:
    """The trial as it ended before, or as an equal one did."""
    found = read_sweep(sweep)
    before = found.trials.get(begun.number)
    if before and before.composed == begun.composed and before.state == "finished":
        return before if read_results(sweep / str(begun.number)) else None
    twin = found.twin(begun.composed, begun.number)
    return twin and replace(begun, state="same", same_as=twin.number)


def _run(sweep: Path, config: Config, begun: Trial, console: PlainConsole) -> Trial:
    """Run or continue; the state stays `running` when it was stopped from outside."""
    from scripts.progress import Terminal
    from simulation.run import simulate

    found = read_sweep(sweep)
    console.print(
        f"\ntrial {begun.number} of {found.document.planned}: {' '.join(found.varied(begun))}",
    )
    directory = sweep / str(begun.number)
    config = settle(config, directory)
    config.tracking.group = config.tracking.group or sweep.name
    config = complete(config)
    if not (directory / "results.json").exists():
        claim(directory, config)
        tell(sweep, begun)
        stop = Event()
        pruner = pruner_of(HydraConfig.get().sweeper, sweep, begun.number, config.run.rounds, stop)
        if not _alone():
            done = simulate(config, _told(pruner), stop, keep_workers=True)
        else:
            with Terminal(console, config.private) as terminal:
                done = simulate(config, [terminal, *_told(pruner)], stop, keep_workers=True)
        if pruner is not None and pruner.pruned:
            return replace(begun, state="pruned", reason=pruner.reason)
        if not done:
            return begun
    return replace(begun, state="finished")


def _told(pruner: Pruner | None) -> Sequence[Callback]:
    return [] if pruner is None else [pruner]


def _alone() -> bool:
    """Whether this is the command's own process: the terminal is this trial's alone."""
    return "basic" in str(HydraConfig.get().launcher.get("_target_", ""))


def _values(sweep: Path, trial: Trial) -> dict[str, float | None]:
    place = sweep / str(trial.number if trial.same_as is None else trial.same_as)
    results = read_results(place) if trial.state in ("finished", "same") else None
    return {} if results is None else measures(results)


def _line(trial: Trial, values: dict[str, Any]) -> str:
    accuracy = values.get("accuracy")
    shown = "" if accuracy is None else f", accuracy {100 * accuracy:.1f} %"
    same = "" if trial.same_as is None else f" as trial {trial.same_as}"
    why = f": {trial.reason}" if trial.reason else ""
    return f"trial {trial.number} {trial.state}{same}{shown}, {trial.seconds:.1f} s{why}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
