"""`fedaccord server start`, `submit`, `status` and `stop`: the coordinator of a deployment."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from rich.table import Table

from common.config import Config, to_json
from common.data.schema import NAMED
from common.errors import UserError
from common.files import held, private_directory
from common.printable import log_printable
from common.processes import Child, flower_environment, new_secret, supervise
from scripts.console import PlainConsole
from scripts.simulate import claim, configure

KEYS = ("version", "host", "port", "control_port", "directory")


@dataclass(frozen=True)
class Coordinator:
    """`coordinator.yaml`; its certificate, key and the partners' keys lie beside it."""

    path: Path
    host: str
    port: int
    control_port: int
    directory: Path

    def composed_with(self, name: str) -> Path:
        """A file of the kit.

        Raises UserError when it is missing.
        """
        path = self.path.parent / name
        if not path.exists():
            raise UserError(f"{path} is missing; it is part of the coordinator's kit")
        return path


def load_coordinator(path: Path) -> Coordinator:
    """Read and check `coordinator.yaml`.

    Raises UserError naming the key.
    """
    path = path.expanduser().absolute()
    try:
        tree: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read as YAML") from error
    if not isinstance(tree, dict) or tree.get("version") != 1:
        raise UserError(f"{path}: version must be 1")
    if unknown := [key for key in tree if key not in KEYS]:
        raise UserError(f"{path}: unknown key {unknown[0]}; known are {', '.join(KEYS)}")
    for key in ("port", "control_port"):
        value = tree.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 65536:
            raise UserError(f"{path}: {key} must be a port number")
    for key, default in (("host", "0.0.0.0"), ("directory", "state")):
        if not isinstance(tree.setdefault(key, default), str):
            raise UserError(f"{path}: {key} must be a text")
    directory = path.parent / Path(tree["directory"]).expanduser()
    return Coordinator(path, tree["host"], tree["port"], tree["control_port"], directory)


def serve(own: Coordinator) -> int:
    """Run the server until it is told to end; keys that come and go are noticed.

    Raises UserError when another one runs.
    """
    from server.control import connect, read_keys

    log_printable(logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    log = logging.getLogger("fedaccord")
    authority, keys = own.composed_with("ca.pem"), own.composed_with("partners")
    registered: dict[str, bytes] = {}
    # When the server was started, until what the last one left is cleared away.
    fresh: datetime | None = None

    def children() -> list[Child]:
        nonlocal fresh
        registered.clear()
        fresh = datetime.now(UTC)
        environment = flower_environment(own.directory)
        secret = new_secret(own.directory, "runtime.secret")
        inner = ["--host", "127.0.0.1", "--port", str(own.control_port)]
        tls = [
            *("--ssl-certfile", str(own.composed_with("server.pem"))),
            *("--ssl-keyfile", str(own.composed_with("server.key"))),
            *("--ssl-ca-certfile", str(authority)),
        ]
        guarded = ["--superexec-auth-secret-file", str(secret)]
        link = [
            *(sys.executable, "-m", "server.superlink", own.host, str(own.port)),
            *(*inner, *tls, *guarded, "--isolation", "process", "--enable-supernode-auth"),
            *("--disable-runtime-dependency-installation",),
            *("--database", str(own.directory / "superlink.db")),
        ]
        worker = [
            *(sys.executable, "-m", "server.worker"),
            *("--runtime-api-address", f"127.0.0.1:{own.control_port}"),
            *("--root-certificates", str(authority), *guarded, "--parent-pid", str(os.getpid())),
        ]
        return [Child("server", link, environment), Child("worker", worker, environment)]

    def tick() -> None:
        nonlocal fresh
        wanted = read_keys(keys)
        if wanted == registered and fresh is None:
            return
        with connect(own.control_port, authority) as control:
            for change in control.register(wanted):
                log.info("%s", change)
            registered.clear()
            registered.update(wanted)
            if fresh is not None:
                for number in control.end_orphans(fresh):
                    log.warning("run %d ended with the last server: use run.resume", number)
                fresh = None

    lock = private_directory(own.directory) / "server.lock"
    with held(lock, f"{own.directory}: a server of this federation runs already; stop it first"):
        log.info("partners connect to %s:%d", own.host, own.port)
        return supervise(children, tick)


def complete(config: Config) -> Config:
    """Check what can be checked without the partners' data.

    Raises UserError naming the key.
    """
    from common.model import build as build_model
    from server.testset import check_supplied
    from strategies.build import build as build_pipeline

    if config.attack.get("_target_"):
        raise UserError("attack: only a simulation may attack itself; use attack=none")
    if not config.data.labels and config.about.target in NAMED:
        raise UserError("data.labels: name the labels in order; partners' rows are not seen here")
    if config.run.partners < 1:
        raise UserError("run.partners: say how many partners must be there before the first round")
    build_model(config.model, config.outputs, config.run.seed, config.task)
    pipeline = build_pipeline(config.strategy)
    pipeline.check(config.run.partners)
    check_supplied(pipeline, config, "data.test_path")
    return config


def submit(own: Coordinator, overrides: Sequence[str]) -> int:
    """Start a run, show its progress, return when it ends; Ctrl-C leaves it running."""
    from scripts.progress import Terminal
    from server.control import connect
    from server.observers.relay import PROGRESS, Reader

    config = configure(overrides)
    assert config.run.dir is not None
    directory = Path(config.run.dir)
    if (directory / "results.json").exists():
        raise UserError(f"{directory}: this run is finished; choose another run.dir")
    config = complete(config)
    claim(directory, config)
    (directory / PROGRESS).unlink(missing_ok=True)
    console = PlainConsole()
    console.print(f"run directory: {directory}", soft_wrap=True)
    with connect(own.control_port, own.composed_with("ca.pem")) as control:
        number = control.submit(to_json(config))
        console.print(f"run {number}")
        try:
            with Terminal(console, config.private) as terminal:
                reader = Reader(directory / PROGRESS, terminal)
                while not (state := control.run(number)).ended:
                    for _ in range(4):
                        reader.read()
                        time.sleep(0.5)
                reader.read()
                if (directory / "results.json").exists():
                    terminal.finished(json.loads((directory / "results.json").read_text()))
        except KeyboardInterrupt:
            console.print(
                f"run {number} goes on; stop it with: fedaccord stop {own.path} {number}",
                soft_wrap=True,
            )
            return 130
    if not (directory / "results.json").exists():
        reason = state.details.removeprefix("ServerApp failed with exception: ") or state.outcome
        raise UserError(f"the run ended early: {reason}; continue with run.resume={directory}")
    console.print(f"model: {directory / 'model'}", soft_wrap=True)
    console.print(f"report: {directory / 'report.html'}", soft_wrap=True)
    return 0


def status(own: Coordinator) -> int:
    """Print who is registered and connected, and the latest runs."""
    from server.control import connect

    console = PlainConsole()
    with connect(own.control_port, own.composed_with("ca.pem")) as control:
        partners, runs = Table("partner", "connected"), Table("run", "status", "details")
        for node in control.nodes():
            partners.add_row(node.name, "yes" if node.online else "no")
        for run in control.runs():
            details = run.details.strip().splitlines()[:1]
            runs.add_row(str(run.id), f"{run.status} {run.outcome}".strip(), *details)
    console.print(partners)
    console.print(runs)
    return 0


def stop(own: Coordinator, number: str) -> int:
    """End a run; its last checkpoint stands and `submit run.resume=…` continues it."""
    from server.control import connect

    if not number.isdigit():
        raise UserError(f"{number} is not the number of a run; see `fedaccord status`")
    with connect(own.control_port, own.composed_with("ca.pem")) as control:
        control.stop(int(number))
    print(f"run {number} is asked to end")
    return 0


def main(command: str, path: str, rest: Sequence[str]) -> int:
    """Run one of the coordinator's commands."""
    own = load_coordinator(Path(path))
    if command == "server":
        return serve(own)
    if command == "submit":
        return submit(own, rest)
    if command == "stop":
        return stop(own, rest[0])
    return status(own)
