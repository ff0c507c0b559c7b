"""The coordinator's Flower app: read the run's configuration, run the rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common.config import from_json, validate
from common.randomness import Stream, SystemStream
from server.observers import Observer
from server.observers.tensorboard import TensorBoard
from server.observers.tracker import Tracker
from server.rounds import Server


def _system_stream(_: int) -> Stream:
    return SystemStream()


def make_app(
    observers: Sequence[Observer] = (),
    stop: Event | None = None,
    simulated: bool = False,
    client_level_stream: Callable[[int], Stream] = _system_stream,
) -> ServerApp:
    """A ServerApp that calls `observers` at every step and ends early when `stop` is set.

    Args:
        simulated: the partners are this user's own.
        client_level_stream: gives the stream of a round's noise under client-level privacy.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        config = validate(from_json(str(context.run_config["config"])))
        everyone = list(observers)
        if config.tracking.tensorboard:
            everyone.append(TensorBoard(Path(str(config.run.dir)) / "tensorboard"))
        if config.tracking.service != "none":
            everyone.append(Tracker(config))
        Server(config, grid, everyone, stop or Event(), simulated, client_level_stream).run()

    return app


app = make_app()
