"""What goes wrong in a deployment, in real processes; ends the federation that others started."""

from __future__ import annotations

import hashlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from client import ledger
from common.bundle import build_bundle
from tests.deploy.conftest import (
    NAMES,
    Cable,
    Federation,
    fill_in,
    job,
    wait_until,
)
from tests.deploy.test_deployed_run import rounds_done
from tests.deploy.test_units import with_file

pytestmark = pytest.mark.deploy
ROUNDS = 8
DEADLINE = 20


def start_bad(federation: Federation, name: str, faults: str) -> None:
    """Start a partner that goes wrong as `faults` says."""
    with (federation.root / f"{name}.log").open("ab") as log:
        federation.processes[name] = subprocess.Popen(
            [sys.executable, "-m", "tests.deploy.bad_partner", str(federation.partner(name))],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={
                **federation.environment,
                "FEDACCORD_TEST_FAULTS": faults,
                # The package `tests` is not installed.
                "PYTHONPATH": str(Path(__file__).parents[2]),
            },
            cwd=federation.root,
        )


def decisions(directory: Path) -> dict[tuple[str, int], dict[str, object]]:
    """The decision record of each partner and round."""
    path = directory / "decisions.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {(x["partner"], x["round"]): x for x in lines}


@dataclass
class Story:
    directory: Path
    killed_at: int
    resumed_from: int
    newest_before: int


@pytest.fixture(scope="module")
def story(
    federation: Federation,
    test_rows: Path,
    tiny_bert: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Story:
    """One run in which partner-4 misbehaves in six ways, the cable of partner-2 is cut, partner-3
    loses its power and comes back, and so does the server."""
    directory = tmp_path_factory.mktemp("faults") / "run"
    # partner-2 hangs on it until the federation ends.
    cable = Cable(federation.port)
    federation.end("partner-2")
    federation.end("partner-4")
    file = federation.partner("partner-2")
    tree = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump({**tree, "server": f"localhost:{cable.port}"}))
    federation.start_partner("partner-2")
    start_bad(federation, "partner-4", "nan=1 shape=2 huge=3 empty=4 full=5 hang=6")
    federation.wait_for(NAMES)

    def reached(number: int) -> Callable[[], bool]:
        def condition() -> bool:
            if federation.processes["submit"].poll() is not None:
                pytest.fail(f"the run ended before round {number}: {federation.log('submit')}")
            return rounds_done(directory) >= number

        return condition

    federation.submit_in_background(
        *job(tiny_bert, test_rows),
        f"run.rounds={ROUNDS}",
        "run.partners=4",
        f"run.deadline_seconds={DEADLINE}",
        f"run.dir={directory}",
    )
    wait_until(reached(1), 200, "round 1")
    cable.cut()
    time.sleep(4)
    cable.mend()
    wait_until(reached(3), 200, "round 3")
    # It waits up to twice a heartbeat's time before it is asked again.
    federation.wait_for(["partner-2"])
    federation.kill("partner-3")
    killed_at = rounds_done(directory) + 1
    federation.start_partner("partner-3")
    wait_until(reached(6), 300, "round 6")
    federation.kill("server")
    newest = rounds_done(directory)
    federation.processes.pop("submit").wait(60)
    federation.start_server()
    federation.wait_for(NAMES)
    done = federation.submit(f"run.resume={directory}", seconds=300)
    assert done.returncode == 0, done.stdout + done.stderr
    started = (directory / "progress.jsonl").read_text()
    first = next(x[3] for x in map(json.loads, started.splitlines()) if x[0] == "started")
    return Story(directory, killed_at, first - 1, newest)


def test_the_run_ends_with_the_others(story: Story) -> None:
    results = json.loads((story.directory / "results.json").read_text())
    assert [r["round"] for r in results["rounds"]] == list(range(1, ROUNDS + 1))
    assert results["final"]["accuracy"] is not None


@pytest.mark.parametrize(
    ("number", "outcome", "words"),
    [
        (1, "refused", "NaN"),
        (2, "refused", "shape"),
        (3, "refused", "shape"),
        (4, "refused", "message"),
        (5, "refused", ""),
        (6, "missing", "no reply within"),
    ],
)
def test_a_bad_reply_is_refused_with_its_reason(
    story: Story, number: int, outcome: str, words: str
) -> None:
    record = decisions(story.directory)["partner-4", number]
    assert record["outcome"] == outcome
    assert words in str(record["reason"])


def test_a_partner_that_lost_its_power_comes_back(story: Story) -> None:
    found = decisions(story.directory)
    mine = {number: found["partner-3", number]["outcome"] for number in range(1, ROUNDS + 1)}
    assert all(mine[number] not in ("missing", "refused") for number in range(1, story.killed_at))
    assert mine[ROUNDS] not in ("missing", "refused"), mine


def test_nothing_that_was_checkpointed_is_lost(story: Story) -> None:
    assert story.resumed_from >= story.newest_before >= 6


def test_every_ledger_verifies_and_no_spend_is_forgotten(
    federation: Federation, story: Story
) -> None:
    found = decisions(story.directory)
    for name in NAMES:
        path = federation.root / name / "state" / "ledger.sqlite"
        assert ledger.verify(path) == []
        entries = ledger.read(path)
        reserved = [e for e in entries if e.kind == "reserve"]
        used = [
            n
            for n in range(1, ROUNDS + 1)
            if found[name, n]["outcome"] != "missing"
            and not str(found[name, n]["reason"]).startswith("Refused: no answer")
        ]
        # The full disk of partner-4 kept it from reserving, and so from training.
        assert len(reserved) >= len(used) - (name == "partner-4")


def test_refusals_are_told_and_disturb_nobody(
    federation: Federation, story: Story, test_rows: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    """A policy of less epsilon and another version: the run goes on with the other two."""
    federation.end("partner-3")
    federation.end("partner-4")
    fill_in(federation, "partner-3", lifetime={"epsilon": 0.5, "delta": 1e-3})
    federation.start_partner("partner-3")
    start_bad(federation, "partner-4", "version=0")
    # A key that is registered no longer: the old kit of a partner after rotation.
    federation.wait_for(NAMES)
    done = federation.submit(
        *job(tiny_bert, test_rows),
        "run.rounds=1",
        "run.partners=2",
        f"run.dir={tmp_path / 'run'}",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert set(results["final"]["partners"]) == {"partner-1", "partner-2"}
    log = (tmp_path / "run" / "flower.log").read_text()
    assert "partner-3 does not take part: epsilon 8 is not within the 0.5" in log
    assert "partner-4 does not take part" in log
    assert "another version" in log
    assert "epsilon 8 is not within the 0.5" in federation.log("partner-3")


def test_an_attack_and_a_bundle_with_code_are_not_run(
    federation: Federation, story: Story, test_rows: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    from flwr.common.serde import fab_to_proto
    from flwr.proto.control_pb2 import StartRunRequest
    from flwr.supercore.fab import Fab

    from server.control import connect

    attack = federation.submit(
        *job(tiny_bert, test_rows), "attack=sign_flip", "run.partners=2", f"run.dir={tmp_path}/a"
    )
    assert attack.returncode == 2
    assert "attack: only a simulation" in attack.stderr
    with connect(federation.control_port, federation.coordinator.parent / "ca.pem") as control:
        for content, words in (
            (with_file("client/app.py"), "files besides"),
            (build_bundle("9.9.9"), "fedaccord 9.9.9"),
        ):
            fab = Fab(hashlib.sha256(content).hexdigest(), content, {})
            number = control.client.StartRun(StartRunRequest(fab=fab_to_proto(fab))).run_id
            wait_until(lambda n=number: control.run(n).ended, 60, "the run ended")
            assert words in control.run(number).details


def test_a_revoked_key_and_another_authority_are_refused(
    federation: Federation, story: Story, tmp_path: Path
) -> None:
    kits = federation.root / "kits"
    revoked = federation.command(
        "provision", "federation.yaml", "--out", str(kits), "--revoke", "partner-1"
    )
    assert revoked.returncode == 0
    wait_until(lambda: "partner-1" not in federation.connected(), 60, "partner-1 gone")
    assert "partner-2" in federation.connected()
    federation.end("partner-1")
    federation.start_partner("partner-1")
    wait_until(
        lambda: "this partner's key is revoked" in federation.log("partner-1"), 60, "refusal told"
    )
    assert "Failed to activate SuperNode" in federation.log("partner-1")
    assert "partner-1" not in federation.connected()
    other = federation.command("provision", "federation.yaml", "--out", str(tmp_path / "other"))
    assert other.returncode == 0
    stranger = tmp_path / "other" / "coordinator" / "ca.pem"
    (federation.root / "partner-2" / "ca.pem").write_bytes(stranger.read_bytes())
    check = federation.command("partner", "check", str(federation.partner("partner-2")))
    assert check.returncode == 1
    assert "authority did not sign" in check.stdout
    start = federation.command("partner", "start", str(federation.partner("partner-2")))
    assert start.returncode == 2
    assert "authority did not sign" in start.stderr


def test_the_end_leaves_no_process_and_no_port(federation: Federation, story: Story) -> None:
    """Runs last: ends everything."""
    everyone = [p for name in federation.processes for p in federation.tree(name)]
    for name in list(federation.processes):
        federation.processes[name].send_signal(signal.SIGTERM)
    for name in list(federation.processes):
        assert federation.processes.pop(name).wait(40) == 0
    wait_until(lambda: not [p for p in everyone if p.is_running()], 20, "all ended")
    for port in (federation.port, federation.control_port):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
