"""One run at the coordinator: Flower's ServerApp process, running our code and no other.

What carries it out is imported by the process of the run, whose fork server has it loaded: the one
that watches for runs needs none of it.
"""

from __future__ import annotations

import importlib
import logging
from pathlib import Path
from queue import Queue
from typing import Any

from flwr.app import Context
from flwr.common.config import get_fab_config
from flwr.supercore.logger import mirror_output_to_queue, restore_output
from flwr.supercore.superexec.executor import ExecutionSpec
from flwr.supercore.tls import validate_and_resolve_root_certificates

from common.bundle import CONFIG_KEY, check_bundle
from common.errors import UserError
from common.printable import PrintableFormatter
from common.worker import substitute


def run(spec: ExecutionSpec) -> None:
    """Fetch the run of this task, carry it out, exit."""
    from server import exchange
    from server.inbox import Inbox

    # The package hides its module of the same name behind a function.
    flower: Any = importlib.import_module("flwr.superlink.runtime.run_serverapp")
    logs: Queue[str | None] = Queue()
    mirror_output_to_queue(logs)
    # Asking is a request over TLS here, not a look into memory.
    exchange.POLL_SECONDS = 0.5
    # The places where Flower would unpack and import what was submitted.
    substitute(flower, "install_from_fab", _refuse_code)
    substitute(flower, "get_project_config", lambda _: get_fab_config(_checked[-1]))
    substitute(flower, "get_fused_config_from_dir", lambda _, override: dict(override))
    substitute(flower, "run_", _run)
    substitute(flower, "HttpGrid", Inbox)
    flower.run_serverapp(
        runtime_api_address=spec.runtime_api_address,
        log_queue=logs,
        token=spec.token,
        insecure=spec.insecure,
        certificates=validate_and_resolve_root_certificates(
            spec.root_certificates_path, spec.insecure
        ),
        parent_pid=spec.parent_pid,
        runtime_dependency_install=False,
    )
    restore_output()


_checked: list[bytes] = []


def _refuse_code(content: bytes, **_: object) -> Path:
    check_bundle(content)
    _checked.append(content)
    return Path()


def _run(grid: Any, context: Context, **_: object) -> Context:
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
    return context
