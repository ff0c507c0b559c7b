"""One run at the coordinator: Flower's ServerApp process, running our code and no other.

Only the process of a run imports what carries it out, from a fork server that has it loaded.  The
process that watches for runs needs none of it.
"""

from __future__ import annotations

import logging
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid

from common.bundle import CONFIG_KEY, check_bundle
from common.errors import UserError
from common.flower.executor import ExecutionSpec
from common.flower.serverapp import carry_out_run
from common.printable import PrintableFormatter


def run(spec: ExecutionSpec) -> None:
    """Fetch the run of this task, carry it out, exit."""
    from server import exchange
    from server.inbox import Inbox

    # Asking for replies is a request over TLS here, not a look into memory.
    exchange.POLL_SECONDS = 0.5
    carry_out_run(spec, check_bundle, _run, Inbox)


def _run(grid: Grid, context: Context) -> None:
    """Our own ServerApp, whose progress goes into the run's directory."""
    from common.config import from_json
    from server.app import make_app
    from server.callbacks.relay import PROGRESS, Relay

    text = str(context.run_config[CONFIG_KEY])
    directory = from_json(text).run.dir
    if directory is None or not Path(directory).is_dir():
        raise UserError("run.dir: there is no such directory; start runs with `fedaccord submit`")
    file = logging.FileHandler(Path(directory) / "flower.log")
    file.setFormatter(PrintableFormatter())
    for name in ("flwr", "server"):
        logging.getLogger(name).addHandler(file)
    make_app([Relay(Path(directory) / PROGRESS)])(grid=grid, context=context)
