"""A run's settings become a server that is ready to run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event

from flwr.serverapp import Grid

from common.config import Config, config_hash
from common.errors import UserError
from common.files import sha256_text
from common.models.build import build as build_network
from common.randomness import Stream
from server import checkpoint as checkpoints
from server.calibration import calibrate_head
from server.callbacks import Callback
from server.callbacks.append_audit_log import AppendAuditLog
from server.callbacks.chain import Chain
from server.callbacks.deliver_model import DeliverModel
from server.callbacks.draw_report import DrawReport
from server.callbacks.save_checkpoint import SaveCheckpoint
from server.callbacks.stop_early import StopEarly
from server.callbacks.write_decisions import WriteDecisions
from server.callbacks.write_results import WriteResults
from server.callbacks.write_rounds import WriteRounds
from server.global_model import PublicModel
from server.rounds import Server, system_stream
from server.testset import TestSet
from strategies.build import build as build_pipeline
from strategies.pipeline import Pipeline


def build_server(
    config: Config,
    grid: Grid,
    callbacks: Sequence[Callback],
    stop: Event,
    simulated: bool,
    client_level_stream: Callable[[int], Stream] = system_stream,
) -> Server:
    """The server of a run whose `run.dir` and `run.cache_dir` are set.

    Args:
        config: the run.
        grid: how messages travel.
        callbacks: they act on the run's events after the server's own callbacks.
        stop: the run ends when this event is set.
        simulated: whether the partners are this user's own, on this machine.
        client_level_stream: the noise of client-level privacy in a round, by the round's number.

    Raises:
        UserError: settings contradict each other, or files that the run needs are missing.
    """
    began = time.monotonic()
    assert config.run.dir is not None
    directory = Path(config.run.dir)
    pipeline = build_pipeline(config.strategy)
    network = build_network(config.model, config.outputs, config.run.seed, config.task)
    rows = TestSet.load(config, network)
    check(config, pipeline, rows is not None, simulated)
    if rows is not None:
        calibrate_head(network, rows.validation, rows.device)
    resumed = checkpoints.resumable(directory / "checkpoints", config_hash(config))
    return Server(
        config,
        grid,
        PublicModel(network, rows, config.train),
        pipeline,
        resumed,
        resumed.run_id if resumed else new_run_id(config),
        Chain([*own_callbacks(config, directory, simulated), *callbacks]),
        stop,
        simulated,
        client_level_stream,
        began,
    )


def check(config: Config, pipeline: Pipeline, public_rows: bool, simulated: bool) -> None:
    """Raise UserError, naming the key, for settings that this server cannot run."""
    if config.attack.get("_target_") and not simulated:
        raise UserError("attack: is possible in simulations only; use attack=none")
    if pipeline.client_level is not None and config.run.patience > 0:
        raise UserError(
            "run.patience: early stopping looks at partners' losses, which strategy.client_level "
            "does not cover; set it to 0"
        )
    if pipeline.needs_reference and not public_rows:
        raise UserError(
            "strategy.robust: fltrust trusts the server's own update and needs public rows at the "
            "server; give data.test, or take another rule"
        )


def own_callbacks(config: Config, directory: Path, simulated: bool) -> list[Callback]:
    """What every run does with its rounds.  The order matters: see each one's docstring."""
    return [
        WriteDecisions(directory / "decisions.jsonl"),
        SaveCheckpoint(directory / "checkpoints", config.run.keep_checkpoints),
        DeliverModel(directory / "model", config, simulated),
        AppendAuditLog(directory, config),
        WriteRounds(directory / "rounds.csv"),
        WriteResults(directory / "results.json"),
        DrawReport(directory),
        StopEarly(config.run.patience),
    ]


def new_run_id(config: Config) -> str:
    """An identity for a new run, 16 hexadecimal digits."""
    return sha256_text(config_hash(config), str(time.time_ns()))[:16]
