"""The server's door: read the run's configuration, run the rounds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Event

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common.config import from_json, validate
from server.observers import Observer
from server.observers.tensorboard import TensorBoard
from server.observers.tracker import Tracker
from server.rounds import Server


def make_app(
    observers: Sequence[Observer] = (), stop: Event | None = None, simulated: bool = False
) -> ServerApp:
    """A ServerApp that tells `observers` what happens and ends early when `stop` is set."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        config = validate(from_json(str(context.run_config["config"])))
        everyone = list(observers)
        if config.tracking.tensorboard:
            everyone.append(TensorBoard(Path(str(config.run.dir)) / "tensorboard"))
        if config.tracking.service != "none":
            everyone.append(Tracker(config))
        Server(config, grid, everyone, stop or Event(), simulated).run()

    return app


app = make_app()
