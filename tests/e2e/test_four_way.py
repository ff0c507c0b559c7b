"""`fedaccord four-way`: finished cells are kept, missing ones are run."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from inspection.verify import verify
from scripts import cli

pytestmark = pytest.mark.e2e


def terminate_once_there(path: Path, seconds: float) -> threading.Thread:
    """Send this process SIGTERM as soon as `path` exists."""

    def watch() -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if path.exists():
                os.kill(os.getpid(), signal.SIGTERM)
                return
            time.sleep(0.02)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def test_an_interrupted_study_is_finished_by_the_same_command(
    finished: Path,
    job: list[str],
    environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FEDACCORD_CACHE", environment["FEDACCORD_CACHE"])
    study = tmp_path / "study"
    attack = ["--attack", "attack=sign_flip attack.count=1"]
    command = ["four-way", "--dir", str(study), *attack, *job]
    place = study / "seed-0" / "none"
    watcher = terminate_once_there(place / "checkpoints" / "round-000001", 300)
    assert cli.main(command) == 130
    watcher.join(1)
    assert "the same command continues" in capsys.readouterr().out
    assert not (place / "results.json").exists()
    # The other cells are not what is tested here: six that somebody else has finished.
    text = (finished / "results.json").read_text()
    for name in ("attack", "fair", "attack-fair", "dp", "dp-attack", "dp-fair"):
        (study / "seed-0" / name).mkdir()
        (study / "seed-0" / name / "results.json").write_text(text)
    assert cli.main(command) == 0
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
