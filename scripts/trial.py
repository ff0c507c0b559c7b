"""What a Hydra launcher calls for each trial of a sweep, in this process or in one of its own."""

from __future__ import annotations

import os
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from common.config import Config, config_hash, validate
from common.errors import described
from scripts.compose import resolved
from scripts.console import PlainConsole
from scripts.progress import Terminal
from simulation.prepare import ENVIRONMENT
from sweeps import trial as trials
from sweeps.records import Trial, read_sweep, tell
from sweeps.trial import Outcome


def run_trial(tree: DictConfig) -> Outcome:
    """Run, continue or look up the trial that Hydra has composed.

    Args:
        tree: The composed configuration.

    Returns:
        What became of the trial; a failure is an outcome too.

    Raises:
        KeyboardInterrupt: The trial was stopped from outside. The sweep ends and can be continued.
    """
    os.environ.update(ENVIRONMENT)
    hydra = HydraConfig.get()
    sweep = Path(hydra.sweep.dir).absolute()
    overrides = [str(o) for o in hydra.overrides.task]
    begun = Trial(int(hydra.job.num), "running", overrides, time=trials.now())
    console = PlainConsole(soft_wrap=True)
    clock = time.monotonic()
    try:
        config = validate(resolved(tree))
        begun = replace(begun, composed=config_hash(config))
        ended = trials.known(sweep, begun) or _run(sweep, config, begun, console)
    except Exception as error:
        ended = replace(begun, state="failed", reason=described(error))
    else:
        if ended.state == "running":
            raise KeyboardInterrupt
    if ended.state != "finished" or not ended.seconds:
        ended = replace(ended, seconds=time.monotonic() - clock, time=trials.now())
        tell(sweep, ended)
    outcome = trials.outcome(sweep, ended)
    console.print(trials.line(ended, outcome.values))
    return outcome


def _run(sweep: Path, config: Config, begun: Trial, console: PlainConsole) -> Trial:
    """Announce the trial and run it; only a trial in this process shows its progress."""
    found = read_sweep(sweep)
    console.print(
        f"\ntrial {begun.number} of {found.document.planned}: {' '.join(found.varied(begun))}"
    )
    config = trials.prepared(sweep, begun.number, config)
    terminal = Terminal(console, config.private) if _alone() else None
    with terminal or nullcontext():
        callbacks = [] if terminal is None else [terminal]
        return trials.run(sweep, config, begun, HydraConfig.get().sweeper, callbacks)


def _alone() -> bool:
    """Whether the trials run one after another in the command's own process."""
    return "basic" in str(HydraConfig.get().launcher.get("_target_", ""))
