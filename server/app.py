"""The coordinator's Flower app: read the run's configuration, run the rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common.config import from_json, validate
from common.randomness import Stream
from server.build import build_server
from server.callbacks import Callback
from server.callbacks.tensorboard import TensorBoard
from server.callbacks.tracker import Tracker
from server.rounds import system_stream


def make_app(
    callbacks: Sequence[Callback] = (),
    stop: Event | None = None,
    simulated: bool = False,
    client_level_stream: Callable[[int], Stream] = system_stream,
) -> ServerApp:
    """A ServerApp that tells `callbacks` what happens and ends early when `stop` is set.

    Args:
        callbacks: They act on the events of the run, after the server's own.
        stop: Ends the run early when it is set.
        simulated: The partners are this user's own.
        client_level_stream: Gives the stream of a round's noise under client-level privacy.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        config = validate(from_json(str(context.run_config["config"])))
        everyone = list(callbacks)
        if config.tracking.tensorboard:
            everyone.append(TensorBoard(Path(str(config.run.dir)) / "tensorboard"))
        if config.tracking.service != "none":
            everyone.append(Tracker(config))
        build_server(config, grid, everyone, stop or Event(), simulated, client_level_stream).run()

    return app


app = make_app()
