"""What goes wrong in a deployment, in real processes; ends the federation that others started."""

from __future__ import annotations

import hashlib
import json
import signal
import socket
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from client import ledger
from common.bundle import build_bundle
from results import audit
from tests.deploy.cable import Cable
from tests.deploy.conftest import (
    NAMES,
    Federation,
    fill_in,
    job,
    wait_until,
)
from tests.deploy.test_deployed_run import rounds_done
from tests.deploy.test_units import with_file

pytestmark = pytest.mark.deploy
ROUNDS = 5
DEADLINE = 30
KILLED_AT = 4
# Who does what in which round, and what is recorded of it.
FAULTS = [
    ("partner-3", 1, "nan", "refused", "NaN"),
    ("partner-4", 1, "shape", "refused", "shape"),
    ("partner-3", 2, "huge", "refused", "larger than 16 MiB"),
    ("partner-4", 2, "empty", "refused", "not a fedaccord message"),
    ("partner-3", 3, "norm", "refused", "norm"),
    ("partner-4", 3, "full", "refused", "look at its own log"),
    ("partner-4", 4, "hang", "missing", "no reply within"),
    ("partner-4", 5, "junk", "refused", "unreadable parameters"),
]


def is_gone(reason: str) -> bool:
    """Whether a partner was gone, as the deadline found out or Flower, who missed its heartbeat."""
    return "no reply within" in reason or "Node Unavailable" in reason


def decisions(directory: Path) -> dict[tuple[str, int], dict[str, object]]:
    """The decision record of each partner and round."""
    path = directory / "decisions.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {(x["partner"], x["round"]): x for x in lines}


@dataclass
class Story:
    directory: Path
    resumed_from: int
    newest_before: int


@pytest.fixture(scope="module")
def story(
    federation: Federation,
    cable: Cable,
    test_rows: Path,
    tiny_bert: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Story:
    """One run in which partners misbehave in eight ways, the cable of partner-2 is cut, partner-3
    loses its power in the middle of training and comes back, and so does the server."""
    directory = tmp_path_factory.mktemp("faults") / "run"
    told = [(who, kind, number) for who, number, kind, *_ in FAULTS]
    for name in ("partner-3", "partner-4"):
        faults = [f"{kind}={number}" for who, kind, number in told if who == name]
        hold = [f"hold={KILLED_AT}"] if name == "partner-3" else []
        federation.spoil(name, " ".join(faults + hold))

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
        # Two are usable in most rounds, and one of these loses its cable.
        "run.quorum=0.25",
        f"run.dir={directory}",
    )
    wait_until(reached(1), 200, "round 1")
    cable.cut()
    time.sleep(4)
    cable.mend()
    wait_until(reached(2), 200, "round 2")
    # It waits up to twice a heartbeat's time before it is asked again.
    federation.wait_for(["partner-2"])
    wait_until(lambda: federation.holds("partner-3"), 200, "partner-3 trains")
    federation.kill("partner-3")
    federation.start_partner("partner-3")
    wait_until(reached(KILLED_AT), 300, f"round {KILLED_AT}")
    federation.kill("server")
    newest = rounds_done(directory)
    federation.processes.pop("submit").wait(60)
    federation.start_server()
    federation.wait_for(NAMES)
    done = federation.submit(f"run.resume={directory}", seconds=300)
    assert done.returncode == 0, done.stdout + done.stderr
    started = (directory / "progress.jsonl").read_text()
    first = next(x[3] for x in map(json.loads, started.splitlines()) if x[0] == "started")
    return Story(directory, first - 1, newest)


def test_the_run_ends_with_the_others(story: Story) -> None:
    results = json.loads((story.directory / "results.json").read_text())
    assert [r["round"] for r in results["rounds"]] == list(range(1, ROUNDS + 1))
    assert results["final"]["accuracy"] is not None


@pytest.mark.parametrize(("name", "number", "kind", "outcome", "words"), FAULTS)
def test_a_bad_reply_is_refused_with_its_reason(
    story: Story, name: str, number: int, kind: str, outcome: str, words: str
) -> None:
    record = decisions(story.directory)[name, number]
    assert record["outcome"] == outcome
    assert words in str(record["reason"])


def test_a_full_disk_is_told_at_the_partner_alone(federation: Federation, story: Story) -> None:
    log = federation.log("partner-4")
    assert "disk is full" in log or "disk I/O error" in log
    for text in (federation.log("submit"), (story.directory / "decisions.jsonl").read_text()):
        assert str(federation.root / "partner-4") not in text


def test_a_partner_that_lost_its_power_comes_back(federation: Federation, story: Story) -> None:
    found = decisions(story.directory)
    mine = [found["partner-3", number]["outcome"] for number in range(1, ROUNDS + 1)]
    reason = str(found["partner-3", KILLED_AT]["reason"])
    assert is_gone(reason)
    # Nobody answered by the deadline, or Flower answered in the partner's place.
    expected = "missing" if "no reply within" in reason else "refused"
    assert mine[KILLED_AT - 1] == expected
    assert mine[-1] not in ("missing", "refused"), mine
    # The spend of the training that was cut short counts.
    entries = ledger.read(federation.root / "partner-3" / "state" / "ledger.sqlite")
    kinds = {
        kind: [e.body for e in entries if e.kind == kind and f"/{KILLED_AT}/" in e.body["release"]]
        for kind in ("reserve", "commit")
    }
    assert len(kinds["reserve"]) > len(kinds["commit"])


def test_a_partner_whose_cable_was_mended_goes_on(story: Story) -> None:
    found = decisions(story.directory)
    outcomes = [found["partner-2", number]["outcome"] for number in range(3, ROUNDS + 1)]
    assert not {"missing", "refused"} & set(outcomes), outcomes


def test_nothing_that_was_checkpointed_is_lost(federation: Federation, story: Story) -> None:
    # What the killed server had asked for keeps no partner waiting; on a slow machine Flower may
    # have missed the run's heartbeat before.
    log = federation.log("server")
    assert "ended with the last server" in log or "No heartbeat received" in log
    assert story.resumed_from >= story.newest_before >= KILLED_AT


def test_the_audit_log_tells_the_story(federation: Federation, story: Story) -> None:
    verified = federation.command("verify", str(story.directory))
    assert verified.returncode == 0, verified.stdout
    entries = audit.parse((story.directory / audit.NAME).read_bytes())
    starts = [e.body["after_round"] for e in entries if e.kind == "started"]
    assert starts == [0, story.resumed_from]
    assert entries[-1].kind == "finished"
    rounds = audit.rounds_of(entries)
    for name, number, _, _, words in FAULTS:
        assert words in rounds[number]["refusals"][name]
    assert is_gone(rounds[KILLED_AT]["refusals"]["partner-3"])


def test_every_ledger_verifies_and_no_spend_is_forgotten(
    federation: Federation, story: Story
) -> None:
    found = decisions(story.directory)
    for name in NAMES:
        path = federation.root / name / "state" / "ledger.sqlite"
        assert ledger.verify(path) == []
        entries = ledger.read(path)
        releases = [e.body["release"] for e in entries if e.kind == "reserve"]
        trained = {
            n
            for n in range(1, ROUNDS + 1)
            if found[name, n]["outcome"] != "missing"
            and "look at its own log" not in str(found[name, n]["reason"])
            and not is_gone(str(found[name, n]["reason"]))
        }
        assert trained
        for number in trained:
            assert any(f"/{number}/" in release for release in releases), (name, number)


def test_refusals_are_told_and_disturb_nobody(
    federation: Federation, story: Story, test_rows: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    """A policy of less epsilon and another version: the run goes on with the other two, who tell
    nothing exactly."""
    # The run before told exact metrics.
    federation.begin_anew()
    # The policy is read again for every message.
    fill_in(federation, "partner-3", lifetime={"epsilon": 0.5, "delta": 1e-3})
    federation.spoil("partner-4", "version=0")
    done = federation.submit(
        *job(tiny_bert, test_rows),
        "privacy.metrics=private",
        "train.batch_size=8",
        "run.rounds=1",
        "run.partners=2",
        f"run.dir={tmp_path / 'run'}",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert set(results["final"]["partners"]) == {"partner-1", "partner-2"}
    assert all(row["accuracy_error"] > 0 for row in results["final"]["partners"].values())
    log = (tmp_path / "run" / "flower.log").read_text()
    assert "partner-3 does not take part: privacy.epsilon: this partner's policy" in log
    assert "0.5" not in log.partition("partner-3 does not take part")[2].partition("\n")[0]
    assert "partner-4 does not take part" in log
    assert "another version" in log
    assert "epsilon 8: it is not within the 0.5" in federation.log("partner-3")


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
    assert "attack: is possible in simulations only" in attack.stderr
    with connect(federation.control_port, federation.coordinator.parent / "ca.pem") as control:
        for content, words in (
            (with_file("client/app.py"), "files besides"),
            (build_bundle("9.9.9"), "fedaccord 9.9.9"),
        ):
            fab = Fab(hashlib.sha256(content).hexdigest(), content, {})
            number = control.client.StartRun(StartRunRequest(fab=fab_to_proto(fab))).run_id
            wait_until(lambda n=number: control.run(n).ended, 60, "the run ended")
            assert words in control.run(number).details


def test_keys_are_rotated_and_revoked_while_the_others_go_on(
    federation: Federation, story: Story
) -> None:
    """An old key is a key that nobody registered; the new one is this partner again."""
    name, kits = "partner-1", federation.root / "kits"
    private = (federation.root / name / "node.key").read_bytes()
    for option in ("--rotate", "--revoke"):
        changed = federation.command(
            "provision", "federation.yaml", "--out", str(kits), option, name
        )
        assert changed.returncode == 0
        wait_until(lambda: name not in federation.connected(), 60, f"{name} gone")
        assert "partner-2" in federation.connected()
        wait_until(
            lambda: "this partner's key is revoked" in federation.log(name), 90, "refusal told"
        )
        assert "Failed to activate SuperNode" in federation.log(name)
        if option == "--rotate":
            with tarfile.open(kits / "partners" / f"{name}.tar.gz") as kit:
                new = kit.extractfile(f"{name}/node.key")
                assert new is not None
                (federation.root / name / "node.key").write_bytes(new.read())
            assert (federation.root / name / "node.key").read_bytes() != private
            # The service is still trying.
            wait_until(lambda: name in federation.connected(), 60, f"{name} with its new key")
            (federation.root / f"{name}.log").write_bytes(b"")
    federation.end(name)


def test_another_authority_is_refused(federation: Federation, story: Story, tmp_path: Path) -> None:
    other = federation.command("provision", "federation.yaml", "--out", str(tmp_path / "other"))
    assert other.returncode == 0
    stranger = tmp_path / "other" / "coordinator" / "ca.pem"
    (federation.root / "partner-2" / "ca.pem").write_bytes(stranger.read_bytes())
    check = federation.command("partner", "check", str(federation.partner("partner-2")))
    assert check.returncode == 1
    assert "authority has not signed" in check.stdout
    start = federation.command("partner", "start", str(federation.partner("partner-2")))
    assert start.returncode == 2
    assert "authority has not signed" in start.stderr


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
