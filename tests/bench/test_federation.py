"""The side-by-side bench, with a stand-in for the systems, which take minutes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import psutil
import pytest
from torch import nn

from bench import federation
from bench.peers import job as jobs
from bench.peers.flower_app.task import read_weights, write_weights
from bench.peers.job import Job, Rows
from bench.peers.text import accuracy, build_model, tokenised

KEYS = [
    *("system", "wall_s", "train_s", "seconds_to_accuracy", "accuracy"),
    *("bytes_up_per_partner_round", "peak_mb"),
]
# Two rounds, a process that outlives it, and time for the memory to be read.
STAND_IN = """
import subprocess, sys, time
from pathlib import Path
from bench.peers import job as jobs
folder = Path(sys.argv[1])
job = jobs.read(folder)
left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
Path(sys.argv[2]).write_text(str(left.pid))
for number in range(1, job.rounds + 1):
    for _ in job.partners:
        jobs.trained(folder, 0.5, 100)
    jobs.evaluated(folder, number, 0.4 * number)
    if number == int(sys.argv[3]):
        time.sleep(60)
time.sleep(0.6)
"""


def make_job(base: Path, variant: str) -> Job:
    texts = ["a good film", "a fine plot", "a bad film that is far too long to be kept"]
    rows = Rows(texts, [1, 1, 0])
    return Job(
        base=str(base),
        variant=variant,
        partners=[rows, rows],
        test=rows,
        noise=[1.0, 1.0],
        rounds=2,
        batch=1,
        physical_batch=1,
        length=6,
        epsilon=8.0,
        delta=1e-5,
        seed=0,
    )


def always_answer(model: nn.Module, label: int) -> None:
    """Make every text's logits those of `label`."""
    for name, parameter in model.named_parameters():
        if "classifier" in name:
            parameter.data.zero_()
            if name.endswith("bias"):
                parameter.data[label] = 1.0


def test_a_job_comes_back_as_it_was_written(tmp_path: Path) -> None:
    job = make_job(tmp_path, "lora")
    job.write(tmp_path)
    assert jobs.read(tmp_path) == job


@pytest.mark.parametrize("variant", ["full", "lora", "lora_top"])
def test_what_a_peer_trains_and_sends(tiny_bert: Path, variant: str) -> None:
    job = make_job(tiny_bert, variant)
    model = build_model(job)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert any("classifier" in name for name in trained)
    assert not any("embeddings" in name for name in trained)
    if variant == "lora_top":
        assert {name.split(".layer.")[1][0] for name in trained if ".layer." in name} == {
            str(model.config.num_hidden_layers - 1)
        }
    weights = {name: weight.clone() for name, weight in read_weights(model).items()}
    write_weights(model, {name: weight + 1.0 for name, weight in weights.items()})
    for name, weight in read_weights(model).items():
        assert bool((weight == weights[name] + 1.0).all()), name
    rows = tokenised(job.test, job)
    assert rows.tensors[0].shape == (3, 6)
    for label, share in ((0, 1 / 3), (1, 2 / 3)):
        always_answer(model, label)
        assert accuracy(model, rows) == pytest.approx(share)


def stand_in(monkeypatch: pytest.MonkeyPatch, left: Path, hangs_after: int = 0) -> None:
    told = [str(left), str(hangs_after)]
    monkeypatch.setattr(
        federation,
        "command",
        lambda name, folder, job, workers: (
            [sys.executable, "-c", STAND_IN, str(folder), *told],
            {},
        ),
    )


def test_a_row_and_no_process_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = tmp_path / "left"
    stand_in(monkeypatch, left)
    measured = federation.run("pfl-lora", make_job(tmp_path, ""), 1, 0.7, tmp_path / "log")
    row = measured["row"]
    assert list(row) == KEYS
    assert row["train_s"] == 2.0
    assert row["bytes_up_per_partner_round"] == 100
    assert row["accuracy"] == 0.8
    assert 0 < row["seconds_to_accuracy"] <= row["wall_s"]
    assert row["peak_mb"] > 0
    assert not psutil.pid_exists(int(left.read_text()))


def test_what_a_system_came_to_that_is_not_done_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = tmp_path / "left"
    stand_in(monkeypatch, left, hangs_after=1)
    # Long enough for the stand-in to start on a busy machine.
    measured = federation.run("pfl-lora", make_job(tmp_path, ""), 1, 0.7, tmp_path / "log", 10)
    row = measured["row"]
    assert row["wall_s"] == pytest.approx(10, abs=5)
    assert (row["accuracy"], row["seconds_to_accuracy"]) == (0.4, None)
    assert row["bytes_up_per_partner_round"] == 100
    assert measured["detail"]["accuracies"] == [0.4]
    assert not psutil.pid_exists(int(left.read_text()))


def test_what_the_file_holds_is_not_run_again(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    rows = [{"system": name} for name in federation.SYSTEMS]
    out.write_text(json.dumps({"rows": rows, "details": []}))
    federation.main(["--json", str(out)])
    assert json.loads(out.read_text())["rows"] == rows


def test_an_unknown_system_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        federation.main(["--json", str(tmp_path / "o.json"), "--systems", "fastest"])
    assert error.value.code == 2
    assert "unknown fastest" in capsys.readouterr().err
