"""`fedaccord four-way` from the outside: finished cells are kept, missing ones are run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from server.verify import verify

pytestmark = pytest.mark.e2e


def four_way(
    study: Path, job: list[str], environment: dict[str, str], *more: str
) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "scripts.cli", "four-way", "--dir", str(study)]
    attack = ["--attack", "attack=sign_flip attack.count=1"]
    return subprocess.Popen(
        [*command, *attack, *job, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def test_an_interrupted_study_is_finished_by_the_same_command(
    finished: Path, job: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    study = tmp_path / "study"
    first = four_way(study, job, environment)
    place = study / "seed-0" / "none"
    end = time.monotonic() + 200
    while not (place / "checkpoints" / "round-000001").exists() and time.monotonic() < end:
        assert first.poll() is None, first.communicate()
        time.sleep(0.05)
    first.send_signal(signal.SIGTERM)
    out, err = first.communicate(timeout=90)
    assert first.returncode == 130, out + err
    assert "the same command continues" in out
    # The other cells are not what is tested here: six that somebody else has finished.
    text = (finished / "results.json").read_text()
    for name in ("attack", "fair", "attack-fair", "dp", "dp-attack", "dp-fair"):
        (study / "seed-0" / name).mkdir()
        (study / "seed-0" / name / "results.json").write_text(text)
    second = four_way(study, job, environment)
    out, err = second.communicate(timeout=400)
    assert second.returncode == 0, out + err
    document = json.loads((study / "fourway.json").read_text())
    assert document["attackers"] == ["partner-1"]
    cells = {cell["name"]: cell for cell in document["cells"]}
    assert all(len(cell["runs"]) == 1 for cell in cells.values())
    assert cells["none"]["mean"]["epsilon"] == 0.0
    assert 0 < cells["dp-attack-fair"]["mean"]["epsilon"] <= 8.0
    for name in ("none", "dp-attack-fair"):
        run = study / "seed-0" / name
        assert verify(run).problems == []
        found = json.loads((run / "results.json").read_text())["final"]
        honest = [p["accuracy"] for n, p in found["partners"].items() if n != "partner-1"]
        assert cells[name]["mean"]["worst_partner_accuracy"] == min(honest)
    before, after = (cells[n]["mean"]["accuracy"] for n in ("dp-fair", "dp-attack-fair"))
    assert cells["dp-attack-fair"]["mean"]["attack_loss"] == pytest.approx(before - after)
    assert "simulated attack" in (study / "seed-0/dp-attack-fair/model/README.md").read_text()
    assert (study / "fourway.md").read_text().count("\n| o") == 8
    assert (study / "fourway.svg").read_text().startswith("<?xml")
    assert "partner-1" in (study / "report.html").read_text()
