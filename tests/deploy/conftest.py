"""A real federation on the loopback interface: a coordinator, partners, TLS, keys, processes."""

from __future__ import annotations

import csv
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml

from common.data.schema import DataConfig
from common.data.split import uniforms
from common.data.table import text_key
from deployment.environment import free_port
from tests.conftest import review
from tests.deploy.cable import Cable

# Where partner-1 finds the address of its database; the others have files.
NOTES_DB = "NOTES_DB"
NAMES = ["partner-1", "partner-2", "partner-3", "partner-4"]
# These can be told to go wrong, without a restart; until then they are as honest as the others.
FALLIBLE = ["partner-3", "partner-4"]
# This one reaches the server by a connection that can be cut.
ON_CABLE = "partner-2"
# The disk of this one is small, where this user may mount one.
ON_SMALL_DISK = "partner-4"
# So many that a noisy count of them is never below a batch of 8: six standard deviations.
TRAINED, VALIDATING = 216, 24
PUBLIC_ROWS = 120
VERDICTS = ["bad", "good"]


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Wait until `condition()` holds; fail naming `what` after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"not within {seconds:g} s: {what}")
        time.sleep(0.1)


@dataclass
class Federation:
    """Kits in `root`, processes by name, one log a process."""

    root: Path
    port: int
    control_port: int
    model: Path
    environment: dict[str, str]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def coordinator(self) -> Path:
        return self.root / "kits" / "coordinator" / "coordinator.yaml"

    def partner(self, name: str) -> Path:
        return self.root / name / "partner.yaml"

    def begin_anew(self) -> None:
        """Take the partners' ledgers away, as for other records.

        What left exactly costs infinity: nothing private may follow from the same records.
        """
        for ledger in self.root.glob("*/state/ledger.sqlite*"):
            ledger.unlink()

    def log(self, name: str) -> str:
        path = self.root / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self, name: str, *arguments: str) -> None:
        with (self.root / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-P", "-m", *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                cwd=self.root,
            )

    def start_server(self) -> None:
        self.start("server", "scripts.cli", "server", "start", str(self.coordinator))

    def start_partner(self, name: str) -> None:
        if name in FALLIBLE:
            self.start(name, "tests.deploy.bad_partner", str(self.partner(name)))
        else:
            self.start(name, "scripts.cli", "partner", "start", str(self.partner(name)))

    def spoil(self, name: str, faults: str) -> None:
        """What a fallible partner does from now on, as in `nan=1 hold=3`: kind and round."""
        (self.root / name / "holds").unlink(missing_ok=True)
        (self.root / name / "faults").write_text(faults)

    def holds(self, name: str) -> bool:
        """Whether a fallible partner hangs in the middle of training, as it was told."""
        return (self.root / name / "holds").exists()

    def command(self, *arguments: str, seconds: float = 300) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-m", "scripts.cli", *arguments],
            capture_output=True,
            text=True,
            env=self.environment,
            cwd=self.root,
            timeout=seconds,
            check=False,
        )

    def submit_in_background(self, *overrides: str) -> None:
        self.start("submit", "scripts.cli", "submit", str(self.coordinator), *overrides)

    def submit(self, *overrides: str, seconds: float = 450) -> subprocess.CompletedProcess[str]:
        return self.command("submit", str(self.coordinator), *overrides, seconds=seconds)

    def connected(self) -> list[str]:
        from server.control import connect

        try:
            with connect(self.control_port, self.coordinator.parent / "ca.pem") as control:
                return [node.name for node in control.nodes() if node.online]
        except Exception:
            return []

    def wait_for(self, names: Sequence[str], seconds: float = 240) -> None:
        def connected() -> bool:
            for name, process in self.processes.items():
                if process.poll():
                    pytest.fail(f"{name} ended with {process.returncode}: {self.log(name)[-2000:]}")
            return set(names) <= set(self.connected())

        wait_until(connected, seconds, f"{names} connected")

    def tree(self, name: str) -> list[psutil.Process]:
        """A process and all that it started."""
        try:
            root = psutil.Process(self.processes[name].pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def kill(self, name: str) -> None:
        """SIGKILL for the process and all that it started, as when its machine loses power."""
        for process in self.tree(name):
            process.kill()
        self.processes.pop(name).wait()

    def end(self, name: str) -> int:
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        return process.wait(40)

    def close(self) -> None:
        everyone = [p for name in self.processes for p in self.tree(name)]
        for name in list(self.processes):
            self.processes[name].send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for left in everyone:
            if left.is_running():
                left.kill()


def write_rows(path: Path, rows: Sequence[tuple[str, str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["note", "verdict", "site"])
        writer.writerows(rows)


@pytest.fixture(scope="session")
def sites() -> list[tuple[str, str, str]]:
    """Made-up reviews of four sites: text, label, site; TRAINED train and VALIDATING validate.

    So many at each site that a batch can hold all training rows of every partner: then batches are
    the same in a simulation and in a deployment, whose batches nobody can foresee.
    """
    generator = random.Random(1)
    rows = []
    for name in NAMES:
        left = {True: VALIDATING, False: TRAINED}
        while any(left.values()):
            label = generator.randrange(2)
            text = review(bool(label), generator)
            key = np.frombuffer(text_key(text), dtype=np.uint64)
            side = bool(uniforms(key, 0)[0] < DataConfig().validation_fraction)
            if left[side]:
                left[side] -= 1
                rows.append((text, VERDICTS[label], name))
    return rows


@pytest.fixture(scope="session")
def test_rows(
    reviews: tuple[list[str], list[int]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The coordinator's public rows."""
    path = tmp_path_factory.mktemp("public") / "test.csv"
    rows = list(zip(*reviews, strict=True))[:PUBLIC_ROWS]
    write_rows(path, [(text, VERDICTS[label], "public") for text, label in rows])
    return path


def make_federation(
    root: Path, model: Path, sites: Sequence[tuple[str, str, str]], names: Sequence[str]
) -> Federation:
    """Provision, unpack every kit, fill in every partner.yaml."""
    cache = root / "cache"
    found = Federation(
        root,
        free_port(),
        free_port(),
        model,
        {
            **os.environ,
            "FEDACCORD_CACHE": str(cache),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "160",
            NOTES_DB: f"sqlite:///{root / 'notes.db'}",
            # The package `tests` is not installed.
            "PYTHONPATH": os.pathsep.join(
                [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
            ).rstrip(os.pathsep),
        },
    )
    found.environment.pop("FEDACCORD_SIMULATION", None)
    plant_modules(root)
    tree = {
        "federation": "test",
        "server": {"host": "localhost", "port": found.port, "control_port": found.control_port},
        "partners": list(names),
    }
    (root / "federation.yaml").write_text(yaml.safe_dump(tree))
    made = found.command("provision", "federation.yaml", "--out", "kits")
    assert made.returncode == 0, made.stderr
    settings = yaml.safe_load(found.coordinator.read_text())
    settings["host"] = "127.0.0.1"
    found.coordinator.write_text(yaml.safe_dump(settings))
    with closing(sqlite3.connect(root / "notes.db")) as database, database:
        database.execute("CREATE TABLE notes (note TEXT, verdict TEXT, site TEXT)")
        database.executemany("INSERT INTO notes VALUES (?, ?, ?)", sites)
    for name in names:
        with tarfile.open(root / "kits" / "partners" / f"{name}.tar.gz") as kit:
            kit.extractall(root, filter="fully_trusted")
        write_rows(root / name / "notes.csv", [row for row in sites if row[2] == name])
        fill_in(found, name)
    return found


def plant_modules(folder: Path) -> None:
    """Put somebody's own modules into `folder`, which leave a mark there when they are imported.

    All commands start there, as `fedaccord` does: with `-P`, unlike `python -m`.
    """
    for name in ("client", "common", "conf", "results", "server", "strategies", "flwr", "torch"):
        (folder / f"{name}.py").write_text(f"open({str(folder / f'{name}.mark')!r}, 'w')\n")


def fill_in(federation: Federation, name: str, **policy: object) -> None:
    """Write a partner's own settings."""
    path = federation.partner(name)
    tree = yaml.safe_load(path.read_text())
    query = f"SELECT note, verdict FROM notes WHERE site = '{name}'"
    database = {"source": "sql", "sql_url_env": NOTES_DB, "sql_query": query}
    tree["data"] = {
        **(database if name == NAMES[0] else {"source": "csv", "path": "notes.csv"}),
        "columns": {"text": "note", "label": "verdict"},
        "labels": ["bad", "good"],
    }
    tree["models"] = {str(federation.model): str(federation.model)}
    tree["policy"]["columns"] = {"text": ["note"], "label": ["verdict"]}
    tree["policy"].update(
        {
            "lifetime": {"epsilon": 100.0, "delta": 1e-3},
            "allow_non_private": True,
            "allow_exact_metrics": True,
            **policy,
        }
    )
    path.write_text(yaml.safe_dump(tree))


def job(model: Path, test_rows: Path, batch: int = 40) -> list[str]:
    """Overrides that a simulation and a deployment share."""
    return [
        f"model.base={model}",
        "model.max_length=24",
        "model.precision=fp32",
        "data=csv",
        f"data.test_path={test_rows}",
        "data.columns.text=note",
        "data.columns.label=verdict",
        "data.labels=[bad,good]",
        f"train.batch_size={batch}",
        "train.physical_batch=32",
        "privacy.delta=1e-3",
        "strategy.server.lr=0.02",
        "tracking.tensorboard=false",
    ]


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Put `folder` on a disk of 64 MB, where this user may."""
    folder.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m,mode=0700", "tmpfs", str(folder)]
    mounted = bool(shutil.which("mount")) and subprocess.run(mount, check=False).returncode == 0
    try:
        yield
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="session")
def cable() -> Iterator[Cable]:
    """What partner-2 reaches the server by."""
    found = Cable()
    yield found
    found.close()


@pytest.fixture(scope="session")
def federation(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_bert: Path,
    sites: list[tuple[str, str, str]],
    cable: Cable,
) -> Iterator[Federation]:
    """A server and four partners, connected: two as `fedaccord partner start` makes them, two by
    a program that starts the same and can be told to go wrong."""
    found = make_federation(tmp_path_factory.mktemp("federation"), tiny_bert, sites, NAMES)
    cable.target = found.port
    file = found.partner(ON_CABLE)
    tree = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump({**tree, "server": f"localhost:{cable.port}"}))
    with small_disk(found.root / ON_SMALL_DISK / "state"):
        try:
            found.start_server()
            for name in NAMES:
                found.start_partner(name)
            found.wait_for(NAMES)
            yield found
        finally:
            found.close()
