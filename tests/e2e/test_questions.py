"""What may be asked of a finished run: its report, explanations and probes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from inspection.verify import verify
from scripts.cli import main

pytestmark = pytest.mark.e2e


def test_a_run_leaves_a_report_that_can_be_written_anew(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = (finished / "report.html").read_bytes()
    assert main(["report", str(finished)]) == 0
    assert (finished / "report.html").read_bytes() == written
    assert "report.html" in capsys.readouterr().out
    assert "All partners were simulated on one machine" in written.decode()
    verdict = verify(finished)
    assert verdict.problems == []
    assert not [note for note in verdict.notes if "report" in note]


def test_a_run_explains_itself(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("captum")
    page = tmp_path / "why.html"
    assert main(["explain", str(finished), "a superb <b> film", "--html", str(page)]) == 0
    assert "superb" in capsys.readouterr().out
    assert "superb" in page.read_text()
    assert main(["explain", str(finished), "--global", "--rows", "20", "--top", "3"]) == 0
    assert "Means over 20 held-out texts" in capsys.readouterr().out
    assert main(["explain", str(finished)]) == 2
    assert "needs either a text or --global" in capsys.readouterr().err


def test_a_run_is_probed(
    finished: Path,
    tmp_path: Path,
    reviews: tuple[list[str], list[int]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    figures = tmp_path / "figures.json"
    assert main(["probe", str(finished), "--perturb", "--json", str(figures)]) == 0
    found = json.loads(figures.read_text())
    results = json.loads((finished / "results.json").read_text())
    assert found["rows"] == results["final"]["data"]["measured_rows"]
    # The exported model in float32 against the one that was measured, maybe in bfloat16.
    assert found["accuracy"] == pytest.approx(results["final"]["accuracy"], abs=2 / found["rows"])
    suite = tmp_path / "suite.csv"
    with suite.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "truth", "what"])
        for text, label in list(zip(*reviews, strict=True))[:60]:
            writer.writerow([text, ["no", "yes"][label], "all"])
    columns = ["--text", "text", "--label", "truth", "--functionality", "what", "--group", ""]
    mapping = ["--map", "schlecht=no,gut=yes", "--json", str(figures)]
    assert main(["probe", str(finished), "--suite", str(suite), *columns, *mapping]) == 0
    found = json.loads(figures.read_text())
    assert found["functionalities"]["all"]["n"] == 60
    assert found["groups"]["(none)"]["n"] == 60
    assert main(["probe", str(finished), "--suite", str(suite)]) == 2
    assert "there is no column 'test_case'" in capsys.readouterr().err
