"""`fedaccord audit privacy` on a finished run and on a configuration alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from inspection.verify import verify
from scripts import cli

pytestmark = pytest.mark.e2e


def test_a_finished_run(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["audit", "privacy", "--run", str(finished), "--canaries", "60"]) == 0
    said = capsys.readouterr().out
    report = json.loads((finished / "privacy-audit.json").read_text())
    assert report["claimed_epsilon"] == 8.0
    assert report["confidence"] == 0.95
    for part in ("canaries", "canaries_f_dp", "membership"):
        assert 0 <= report[part]["epsilon_lower_bound"] <= 8.0
        # Three bounds share the probability of error, so that all hold together.
        assert report[part]["confidence"] == pytest.approx(1 - 0.05 / 3)
    assert 0.3 < report["membership"]["auc"] < 0.7
    assert not report["refuted"]
    assert said.count("epsilon is at least") == 3
    assert said.count("claimed: 8") == 3
    assert "All 3 bounds hold together with 95.0% confidence" in said
    assert not verify(finished).problems


def test_a_configuration_without_privacy(
    job: list[str],
    environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FEDACCORD_CACHE", environment["FEDACCORD_CACHE"])
    run = [*job, "privacy=none", "run.rounds=8", f"run.dir={tmp_path / 'audit'}"]
    big = ["model.trainable=full", "train.batch_size=160"]
    assert cli.main(["audit", "privacy", *run, *big, "--canaries", "60"]) == 0
    assert "no privacy is claimed" in capsys.readouterr().out
    report = json.loads((tmp_path / "audit" / "privacy-audit.json").read_text())
    assert report["claimed_epsilon"] is None
    assert report["canaries"]["epsilon_lower_bound"] > 1.0
    assert report["canaries_f_dp"]["epsilon_lower_bound"] > 2.0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--run", "nowhere"], "nowhere"),
        (["--confidence", "1"], "--confidence"),
        (["--canaries", "0"], "--canaries"),
        (["run.ronds=3"], "run.rounds"),
    ],
)
def test_one_line_and_exit_code_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["audit", "privacy", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
