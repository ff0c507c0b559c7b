"""`fedaccord simulate --multirun`: many trials by Hydra's sweepers and launchers."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.version import setbase
from omegaconf.errors import OmegaConfBaseException

from common.config import Config, validate
from common.errors import UserError
from scripts.compose import CONF, as_group_choice, one_line, refuse_null, resolved
from scripts.console import PlainConsole
from scripts.quoting import quoted
from scripts.trial import run_trial
from sweeps.directory import KEY, choose, claimed
from sweeps.plan import plan
from sweeps.records import read_sweep

SET_BY_SWEEP = ("run.dir", "run.resume")
INTERRUPTED = 130


def sweep(overrides: Sequence[str]) -> int:
    """Run the missing trials of a sweep; the same command continues an interrupted sweep.

    Args:
        overrides: Hydra overrides, with lists of values.

    Returns:
        The exit code: 0 when every trial has a result, 1 when one failed, 130 when interrupted.

    Raises:
        UserError: A setting is wrong; nothing has been run.
    """
    console = PlainConsole(soft_wrap=True)
    named = [o for o in overrides if o.startswith(f"{KEY}=")]
    arguments = [as_group_choice(o) for o in overrides if o not in named]
    for override in arguments:
        if (key := override.partition("=")[0].lstrip("+~")) in SET_BY_SWEEP:
            raise UserError(f"{key}: is set by the sweep; use {KEY}")
    refuse_null(arguments)
    hydra = create_hydra()
    with _one_line_errors():
        document = plan(hydra, arguments, typed)
    place = named[-1].partition("=")[2] if named else None
    directory = choose(place, document.identity)
    try:
        with _one_line_errors(), claimed(directory, document):
            console.print(f"sweep directory: {directory}")
            _launch(hydra, arguments, directory)
    except KeyboardInterrupt:
        _report(directory, console)
        console.print("stopped; the same command continues the sweep")
        return INTERRUPTED
    return _report(directory, console)


def create_hydra() -> Hydra:
    """Hydra with the search path of `conf/`."""
    setbase("1.3")
    GlobalHydra.instance().clear()
    ConfigStore.instance().store(name="schema", node=Config)
    return Hydra.create_main_hydra2("fedaccord", create_config_search_path(str(CONF)))


def typed(tree: dict[str, Any]) -> Config:
    """The validated configuration from a composed tree.

    Raises:
        UserError: A setting is wrong; the message names its key.
    """
    return validate(resolved(tree))


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Turn errors of Hydra and OmegaConf into a UserError of one line."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(one_line(error)) from error


def _launch(hydra: Hydra, arguments: Sequence[str], directory: Path) -> None:
    """Hand over to Hydra: its sweeper makes the trials, its launcher runs them."""
    from simulation import workers as runtime

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    place = f"{KEY}={quoted(str(directory))}"
    try:
        hydra.multirun("config", run_trial, [*arguments, place], with_log_configuration=False)
    finally:
        signal.signal(signal.SIGTERM, before)
        runtime.end()


def _report(directory: Path, console: PlainConsole) -> int:
    """Write the report of the trials so far; 1 when a trial failed, else 0."""
    from sweeps.composition import compose_trials
    from sweeps.page import write_sweep_report

    found = read_sweep(directory)
    failed = [t for t in found.trials.values() if t.state == "failed"]
    for trial in failed:
        console.print(f"trial {trial.number} failed: {trial.reason}")
    path = write_sweep_report(found, compose_trials(found))
    console.print(f"report: {path}")
    return 1 if failed else 0
