"""One coordinator and four partners, TLS, node authentication: the result of the simulation, and
nothing left behind."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from tests.deploy.conftest import NAMES, TRAINED, Federation, job, wait_until, write_rows

pytestmark = pytest.mark.deploy
# What grows, grows with every round; a few show it in minutes, and a longer run is one word away.
ROUNDS = int(os.environ.get("FEDACCORD_DEPLOYED_ROUNDS", "5"))
MEGABYTE = 1 << 20


def final_parameters(directory: Path) -> dict[str, torch.Tensor]:
    newest = sorted((directory / "checkpoints").glob("round-*"))[-1]
    return load_file(newest / "parameters.safetensors")


def rounds_done(directory: Path) -> int:
    names = sorted(p.name for p in (directory / "checkpoints").glob("round-*"))
    return int(names[-1].removeprefix("round-")) if names else -1


def long_lived(federation: Federation) -> dict[int, psutil.Process]:
    """Every process of the server and the partners, by id."""
    return {p.pid: p for name in ["server", *NAMES] for p in federation.tree(name)}


def command_line(process: psutil.Process) -> str:
    """Of a process that may have ended since it was listed."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())
    return "ended"


def forks(federation: Federation, name: str) -> bool:
    """Whether the fork server of `name` is up."""
    return any("forkserver" in command_line(p) for p in federation.tree(name))


def memory(processes: dict[int, psutil.Process]) -> dict[int, float]:
    """Resident memory in MB; private memory would grow when a forked child ends.

    A process that has ended in the meantime is not among them.
    """
    resident = {}
    for pid, process in processes.items():
        with contextlib.suppress(psutil.NoSuchProcess):
            resident[pid] = process.memory_info().rss / MEGABYTE
    return resident


@dataclass(frozen=True)
class Run:
    directory: Path
    shared: list[str]
    idle: dict[int, psutil.Process]
    early: dict[int, float]
    late: dict[int, float]


@pytest.fixture(scope="module")
def run(
    federation: Federation,
    test_rows: Path,
    tiny_bert: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Run:
    """All rounds, and the memory of what was there before them, early and late."""
    directory = tmp_path_factory.mktemp("runs") / "deployed"
    shared = [*job(tiny_bert, test_rows, TRAINED), "privacy=none", f"run.rounds={ROUNDS}"]
    # A node registers a little before its fork server is up.
    everyone = ["server", *NAMES]
    wait_until(lambda: all(forks(federation, name) for name in everyone), 60, "workers ready")
    idle = long_lived(federation)
    federation.submit_in_background(*shared, "run.partners=4", f"run.dir={directory}")
    wait_until(lambda: rounds_done(directory) >= 2, 200, federation.log("submit"))
    early = memory(idle)
    process = federation.processes.pop("submit")
    assert process.wait(400) == 0, federation.log("submit") + federation.log("server")
    # It trained without privacy, and other tests ask these partners for private runs.
    federation.begin_anew()
    return Run(directory, shared, idle, early, memory(idle))


def test_the_result_equals_the_simulation(
    federation: Federation, run: Run, sites: list[tuple[str, str, str]], tmp_path: Path
) -> None:
    write_rows(tmp_path / "all.csv", sites)
    simulated = federation.command(
        "simulate",
        *run.shared,
        f"data.path={tmp_path / 'all.csv'}",
        "data.columns.groups=[site]",
        "partition=natural",
        "partition.blocks.partner.by=site",
        "run.workers=1",
        f"run.dir={tmp_path / 'simulated'}",
        seconds=240,
    )
    assert simulated.returncode == 0, simulated.stdout + simulated.stderr
    results = json.loads((run.directory / "results.json").read_text())
    assert set(results["final"]["partners"]) == set(NAMES)
    assert [r["replies"] for r in results["rounds"]] == [4] * ROUNDS
    wanted = final_parameters(tmp_path / "simulated")
    found = final_parameters(run.directory)
    assert set(found) == set(wanted)
    distance = max(float((found[name] - wanted[name]).abs().max()) for name in wanted)
    print(f"after {ROUNDS} rounds the largest difference of a parameter is {distance:.2g}")
    assert distance <= 1e-5
    assert sum(float(tensor.abs().sum()) for tensor in found.values()) > 0


def test_the_rounds_leave_no_process_and_no_file(federation: Federation, run: Run) -> None:
    # The last task's process needs a moment to end.
    def left() -> list[str]:
        return [
            f"{pid} {command_line(p)}"
            for pid, p in long_lived(federation).items()
            if pid not in run.idle
        ]

    end = time.monotonic() + 30
    while left() and time.monotonic() < end:
        time.sleep(0.5)
    assert not left()
    for state in (
        federation.coordinator.parent / "state",
        *(federation.root / n / "state" for n in NAMES),
    ):
        assert not [p for p in (state / "tmp").rglob("*") if p.is_file()]
        # Neither is the coordinator's bundle ever unpacked here.
        assert not list((state / "flower").rglob("*.toml"))


def test_nothing_of_the_current_folder_was_imported(federation: Federation, run: Run) -> None:
    assert (federation.root / "server.py").exists()
    assert list(federation.root.glob("*.mark")) == []


def test_memory_does_not_grow_with_rounds(run: Run) -> None:
    """From round 2 to the last: some caches, and nothing like the rounds' traffic."""
    growth = {pid: run.late[pid] - run.early[pid] for pid in run.late}
    # At least the server, its workers and each partner's node.
    assert len(growth) > len(NAMES)
    print(
        {
            command_line(run.idle[pid])[-60:]: f"{run.early[pid]:.0f} MB {by:+.1f}"
            for pid, by in growth.items()
        }
    )
    assert max(growth.values()) < 15, growth


def test_only_the_fleet_is_served_to_the_outside(federation: Federation) -> None:
    """The port that partners reach starts no runs; the other is not reachable from outside."""
    import ssl
    import urllib.error
    import urllib.request

    context = ssl.create_default_context(cafile=str(federation.coordinator.parent / "ca.pem"))
    for path in ("/v1/control/list-nodes", "/v1/fleet/register-node", "/docs", "/health"):
        url = f"https://localhost:{federation.port}{path}"
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(url, data=b"", timeout=10, context=context)
        assert refused.value.code == 404
    door = http.client.HTTPSConnection("localhost", federation.port, timeout=10, context=context)
    door.putrequest("POST", "/v1/fleet/pull-messages")
    door.putheader("Content-Length", str(1 << 40))
    door.endheaders()
    assert door.getresponse().status == 413
    door.close()
    listening = []
    for process in long_lived(federation).values():
        with contextlib.suppress(psutil.NoSuchProcess):
            sockets = process.net_connections("tcp")
            listening += [c.laddr for c in sockets if c.status == psutil.CONN_LISTEN]
    assert listening
    assert {address.ip for address in listening} == {"127.0.0.1"}


def test_a_second_server_is_refused(federation: Federation) -> None:
    second = federation.command("server", "start", str(federation.coordinator))
    assert second.returncode == 2
    assert "runs already" in second.stderr


def test_the_partner_checks_pass(federation: Federation) -> None:
    done = federation.command("partner", "check", str(federation.partner("partner-1")))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("pass") == 10
    status = federation.command("status", str(federation.coordinator))
    assert status.stdout.count("yes") == 4
