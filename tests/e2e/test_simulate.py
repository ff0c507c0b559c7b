"""`fedaccord simulate` from the outside: what a run leaves, resume, interrupt, errors."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import pipeline

from client import ledger
from client.accounting import epsilon
from inspection.verify import verify
from results.audit import parse, rounds_of
from simulation.workers import at_once
from strategies.client_level import gaussian_epsilon
from tests.e2e.conftest import Measured, Run, Start, still_alive

pytestmark = pytest.mark.e2e
# Until a process of its own has trained: seconds on an idle machine, minutes beside other tests.
PATIENCE = 400


def final_parameters(directory: Path) -> dict[str, torch.Tensor]:
    newest = sorted((directory / "checkpoints").glob("round-*"))[-1]
    return load_file(newest / "parameters.safetensors")


def wait_for(condition: object, seconds: float, process: subprocess.Popen[str]) -> None:
    """Wait until `condition()` holds, with a bound; fail with the output if the process ends."""
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            pytest.fail(f"not reached: {process.communicate()}")
        time.sleep(0.02)


def rounds_done(directory: Path) -> int:
    """The newest round on disk; -1 before the first checkpoint."""
    names = sorted(path.name for path in (directory / "checkpoints").glob("round-*"))
    return int(names[-1].removeprefix("round-")) if names else -1


def test_a_run_leaves_what_the_design_says(finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    assert results["schema_version"] == 1
    assert results["seed"] == 1
    assert [r["round"] for r in results["rounds"]] == [1, 2, 3]
    assert all(r["accuracy"] is not None and r["replies"] == 3 for r in results["rounds"])
    assert all(r["worst_partner_accuracy"] is not None for r in results["rounds"])
    final = results["final"]
    assert set(final["partners"]) == {"partner-1", "partner-2", "partner-3"}
    assert sum(p["weight_share"] for p in final["partners"].values()) == pytest.approx(1.0)
    assert 7.5 < final["epsilon"]["max"] <= 8.0
    assert final["epsilon"]["delta"] == 1e-4
    assert set(final["groups"]) == {"Haus=Nord", "Haus=Süd"}
    fairness = final["fairness"]
    assert fairness["partners"]["worst"] == final["worst_partner_accuracy"]
    assert set(fairness["groups"]["Haus"]["values"]) == {"Nord", "Süd"}
    assert final["data"]["partners"] == 3
    assert results["cost"]["bytes_up_per_partner_round"] > 0
    assert results["cost"]["peak_rss_mb"] > 100
    for name in ("config.yaml", "rounds.csv", "decisions.jsonl", "tensorboard", "model"):
        assert (finished / name).exists(), name
    decisions = [json.loads(x) for x in (finished / "decisions.jsonl").read_text().splitlines()]
    assert len(decisions) == 9
    assert yaml.safe_load((finished / "config.yaml").read_text())["privacy"]["epsilon"] == 8.0


def test_the_model_loads_with_transformers(finished: Path) -> None:
    classify = pipeline("text-classification", str(finished / "model"), trust_remote_code=True)
    assert classify("a superb and lovely film")[0]["label"] in {"schlecht", "gut"}


def test_the_model_has_a_card_that_the_hub_reads(finished: Path) -> None:
    card = ModelCard.load(finished / "model" / "README.md")
    results = json.loads((finished / "results.json").read_text())
    assert card.data.eval_results[0].metric_value == round(results["final"]["accuracy"], 4)
    assert f"ε = {results['final']['epsilon']['max']:.3f}" in card.text
    assert str(finished) not in card.content


def test_the_ledger_holds_every_round_and_what_the_results_say(finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    for partner in (finished / "partners").iterdir():
        path = partner / "ledger.sqlite"
        assert ledger.verify(path) == []
        entries = ledger.read(path)
        kinds = [entry.kind for entry in entries]
        # That validation counts leave exactly stands there before the first message is answered.
        assert kinds == ["genesis", "reserve", *["reserve", "commit"] * 3]
        assert [entry.exact for entry in entries if entry.kind == "reserve"] == [True, *[False] * 3]
        assert ledger.total(entries, 1e-4).value == math.inf
        trained = [s for s in ledger.spent(entries) if s.noise_multiplier > 0]
        spent = epsilon(trained, 1e-4).value
        assert spent == ledger.total(entries, 1e-4, side="train").value
        found = results["final"]["partners"][partner.name]["epsilon"]
        assert found == pytest.approx(spent)
        assert path.stat().st_mode & 0o777 == 0o600


def test_the_audit_log_covers_what_is_left(finished: Path) -> None:
    verdict = verify(finished)
    assert (verdict.problems, verdict.notes) == ([], [])
    first = parse((finished / "audit.jsonl").read_bytes())[0]
    assert first.body["partners"] == ["partner-1", "partner-2", "partner-3"]


def test_no_private_text_in_what_is_left(
    finished: Path, reviews: tuple[list[str], list[int]]
) -> None:
    texts = [t.encode() for t in reviews[0] if len(t) > 40][:50]
    for path in finished.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [t for t in texts if t in content], path


def interrupted(process: subprocess.Popen[str], stop: signal.Signals) -> tuple[str, str]:
    """Send a signal and wait until the process and all that it started have ended; its output."""
    children = psutil.Process(process.pid).children(recursive=True)
    if stop == signal.SIGKILL:
        # Ray's two agents notice the loss of their head only after a while; they touch no file of
        # ours.
        children = [child for child in children if "Agent" not in child.name()]
    assert children
    process.send_signal(stop)
    output = process.communicate(timeout=180)
    assert not still_alive(children, 120)
    return output


def test_ctrl_c_and_sigkill_then_resume_equal_a_run_that_was_never_stopped(
    start: Start, run: Run, job: list[str], finished: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "run"
    process = start(*job, "run.seed=1", f"run.dir={directory}")
    wait_for(lambda: rounds_done(directory) >= 0, PATIENCE, process)
    out, err = interrupted(process, signal.SIGINT)
    assert process.returncode == 130, out + err
    assert f"run.resume={directory}" in out.replace("\n", "")
    before = rounds_done(directory)
    process = start(f"run.resume={directory}")
    wait_for(lambda: rounds_done(directory) > before, PATIENCE, process)
    interrupted(process, signal.SIGKILL)
    assert not (directory / "results.json").exists()
    run(f"run.resume={directory}")
    wanted = final_parameters(finished)
    for name, tensor in final_parameters(directory).items():
        assert torch.equal(tensor, wanted[name]), name
    results = [json.loads((d / "results.json").read_text()) for d in (directory, finished)]
    assert results[0]["final"] == results[1]["final"]
    assert verify(directory).problems == []
    parameters = [
        [body["parameters"] for body in rounds_of(parse((d / "audit.jsonl").read_bytes())).values()]
        for d in (directory, finished)
    ]
    assert parameters[0] == parameters[1]


def test_the_last_model_is_evaluated_once(measured_run: Measured) -> None:
    results = json.loads((measured_run.directory / "results.json").read_text())
    assert [row["loss"] for row in results["rounds"]] == measured_run.losses
    assert results["final"]["loss"] == measured_run.losses[-1]


def test_an_average_of_the_last_models_is_evaluated_anew(crowd: Measured) -> None:
    results = json.loads((crowd.directory / "results.json").read_text())
    assert [row["loss"] for row in results["rounds"]] == crowd.losses[:-1]
    assert results["final"]["loss"] == crowd.losses[-1]
    assert len(crowd.losses) == 3


def test_a_resumed_server_takes_the_constants_of_the_checkpoint(
    run: Run, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "run"
    shutil.copytree(finished, directory)
    shutil.rmtree(directory / "checkpoints" / "round-000003")
    (directory / "results.json").unlink()
    # Fitted anew they would differ.
    monkeypatch.setattr("server.build.calibrate_head", lambda *_: None)
    run(f"run.resume={directory}")
    wanted = final_parameters(finished)
    for name, tensor in final_parameters(directory).items():
        assert torch.equal(tensor, wanted[name]), name


def test_a_kept_worker_that_died_is_replaced(run: Run, job: list[str], tmp_path: Path) -> None:
    def kept() -> list[psutil.Process]:
        children = psutil.Process().children(recursive=True)
        return [child for child in children if "ClientAppActor" in child.name()]

    if not (workers := kept()):
        run(*job, "run.rounds=1", f"run.dir={tmp_path / 'first'}")
        workers = kept()
    for worker in workers:
        worker.kill()
    assert workers
    assert not still_alive(workers, 120)
    run(*job, "run.rounds=1", f"run.dir={tmp_path / 'run'}")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["rounds"][0]["replies"] == 3


def test_a_worker_with_many_messages_has_the_next_one_at_hand(crowd: Measured) -> None:
    assert [at_once(21, workers) for workers in (1, 2)] == [2, 1]
    results = json.loads((crowd.directory / "results.json").read_text())
    assert [row["replies"] for row in results["rounds"]] == [21, 21]
    assert verify(crowd.directory).problems == []


def test_client_level_noise_is_in_results_and_card(crowd: Measured) -> None:
    found = json.loads((crowd.directory / "results.json").read_text())["final"]["client_level"]
    assert found["epsilon"] == pytest.approx(gaussian_epsilon(5.0, 2, 1e-3))
    assert "Whole partners are protected" in (crowd.directory / "model" / "README.md").read_text()


def test_classical_federated_averaging_learns(run: Run, job: list[str], tmp_path: Path) -> None:
    run(
        *job,
        "privacy=none",
        "model.trainable=full",
        "train.local_steps=20",
        "train.optimizer=adam",
        "train.lr=0.005",
        "strategy.server=fedavg",
        "strategy.server.lr=1.0",
        f"run.dir={tmp_path / 'run'}",
    )
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["final"]["accuracy"] > 0.7
    assert results["final"]["epsilon"] == {"max": 0.0, "delta": 0.0}


def test_a_run_supplies_the_servers_own_update_and_the_partners_gaps(
    run: Run, job: list[str], tmp_path: Path
) -> None:
    run(
        *job,
        "privacy=none",
        "attack=sign_flip",
        "attack.count=1",
        "strategy/robust=fltrust",
        "strategy/fair=fairfed",
        "train.ditto_lambda=0.1",
        f"run.dir={tmp_path / 'run'}",
    )
    lines = (tmp_path / "run" / "decisions.jsonl").read_text().splitlines()
    given = {d["partner"]: d["weight_given"] for d in map(json.loads, lines) if d["round"] == 1}
    assert given["partner-1"] == 0.0
    assert given["partner-2"] > 0.1
    assert given["partner-3"] > 0.1
    found = list((tmp_path / "run" / "partners").glob("*/personal/*/personal.json"))
    assert sorted(p.parents[2].name for p in found) == ["partner-1", "partner-2", "partner-3"]
    assert all(json.loads(p.read_text())["round"] == 3 for p in found)


def test_nothing_of_the_current_folder_is_imported(
    environment: dict[str, str], job: list[str], tmp_path: Path
) -> None:
    """Somebody's own project: modules of the names of ours, and of libraries that we use."""
    project, marks = tmp_path / "project", tmp_path / "marks"
    project.mkdir()
    marks.mkdir()
    ours = ("client", "common", "conf", "results", "server", "simulation", "strategies")
    for name in (*ours, "flwr", "numpy", "ray", "torch"):
        (project / f"{name}.py").write_text(f"open({str(marks / name)!r}, 'w')\n")
    # As the installed command does, and unlike `python -m`, which searches the current folder.
    command = [sys.executable, "-P", "-m", "scripts.cli", "simulate", *job]
    paths = [str(Path(__file__).parents[2]), *filter(None, [environment.get("PYTHONPATH")])]
    done = subprocess.run(
        [*command, "run.rounds=1", f"run.dir={tmp_path / 'run'}"],
        cwd=project,
        env={**environment, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert [path.name for path in marks.iterdir()] == []
    assert done.returncode == 0, done.stdout + done.stderr
    assert rounds_done(tmp_path / "run") == 1


def test_help_imports_nothing_heavy() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "scripts.cli", "--help"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    # What takes a second or more to import; a clock would measure how busy the machine is.
    assert imported & {"torch", "transformers", "flwr", "ray", "hydra", "datasets"} == set()
