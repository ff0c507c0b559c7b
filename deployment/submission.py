"""Submitted runs: checks before the submission, progress until the end."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from common.config import Config, to_json
from common.data.schema import NAMED
from common.errors import UserError
from deployment.coordinator import Coordinator
from results.run_directory import RESULTS, claim, refuse_finished
from server.callbacks import Callback
from server.callbacks.relay import PROGRESS, Reader

if TYPE_CHECKING:
    from server.control import Control, RunState

POLL_SECONDS = 0.5
# Progress is read from a file; the server is asked for the run's state less often.
READS_PER_STATE = 4
_SERVER_APP = "ServerApp failed with exception: "


def check(config: Config) -> None:
    """Check what does not depend on the partners' data.

    Args:
        config: The configuration to be submitted.

    Raises:
        UserError: A setting is wrong; the message names its key.
    """
    from common.models.build import build as build_model
    from server.testset import check_supplied
    from strategies.build import build as build_pipeline

    if config.attack.get("_target_"):
        raise UserError("attack: is possible in simulations only; use attack=none")
    if not config.data.labels and config.about.target in NAMED:
        raise UserError(
            "data.labels: is missing; name the labels in order, because the partners' rows are "
            "not read here"
        )
    if config.run.partners < 1:
        raise UserError(
            "run.partners: must be at least 1; it is the number of partners that must be ready "
            "before the first round"
        )
    build_model(config.model, config.outputs, config.run.seed, config.task)
    pipeline = build_pipeline(config.strategy)
    pipeline.check(config.run.partners)
    check_supplied(pipeline, config, "data.test_path")


def prepare(config: Config) -> Path:
    """Check the configuration and claim its run directory.

    Args:
        config: The configuration to be submitted, with absolute paths.

    Returns:
        The run directory.

    Raises:
        UserError: A setting is wrong, or the directory holds something else.
    """
    assert config.run.dir is not None
    directory = Path(config.run.dir)
    refuse_finished(directory)
    check(config)
    claim(directory, config)
    (directory / PROGRESS).unlink(missing_ok=True)
    return directory


def run(
    own: Coordinator, config: Config, callback: Callback, submitted: Callable[[int], None]
) -> None:
    """Submit a run to the server of this machine and follow it to its end.

    Args:
        own: The coordinator's settings.
        config: A configuration that `prepare` has accepted.
        callback: Receives the run's events.
        submitted: Receives the run's number once the server has accepted it.

    Raises:
        UserError: No server answers, or the run ended without results.
    """
    from server.control import connect

    assert config.run.dir is not None
    directory = Path(config.run.dir)
    with connect(own.settings.control_port, own.authority) as control:
        number = control.submit(to_json(config))
        submitted(number)
        state = _follow(control, number, Reader(directory / PROGRESS, callback))
    try:
        text = (directory / RESULTS).read_text()
    except FileNotFoundError:
        reason = state.details.removeprefix(_SERVER_APP) or state.outcome
        raise UserError(
            f"run {number}: ended early ({reason}); continue it with run.resume={directory}"
        ) from None
    callback.finished(json.loads(text))


def _follow(control: Control, number: int, reader: Reader) -> RunState:
    """Pass on progress until the run has ended."""
    while not (state := control.run(number)).ended:
        for _ in range(READS_PER_STATE):
            reader.read()
            time.sleep(POLL_SECONDS)
    reader.read()
    return state
