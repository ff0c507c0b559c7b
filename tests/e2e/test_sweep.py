"""`fedaccord simulate --multirun` from the outside: kill, continue, twins, failures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from inspection.verify import verify
from results.audit import NAME, parse
from scripts import cli
from sweeps.records import read_sweep
from tests.e2e.conftest import Start
from tests.e2e.test_simulate import PATIENCE, rounds_done, wait_for

pytestmark = pytest.mark.e2e


@pytest.fixture
def here(
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., tuple[int, str]]:
    """Run `fedaccord simulate` in this process; gives its exit code and all that it says."""

    def to_its_end(*overrides: str) -> tuple[int, str]:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        code = cli.main(["simulate", *overrides])
        return code, "".join(capsys.readouterr())

    return to_its_end


def started(run: Path) -> int:
    return sum(entry.kind == "started" for entry in parse((run / NAME).read_bytes()))


def test_a_killed_sweep_finishes_the_rest_and_only_the_rest(
    start: Start, here: Callable[..., tuple[int, str]], job: list[str], tmp_path: Path
) -> None:
    place = tmp_path / "sweep"
    command = ("--multirun", *job, "run.seed=0,1,-1,0,2", f"hydra.sweep.dir={place}")
    process = start(*command)
    wait_for(lambda: rounds_done(place / "1") >= 1, PATIENCE, process)
    process.kill()
    process.communicate(timeout=180)
    found = read_sweep(place)
    assert found.document.planned == 5
    assert {n: t.state for n, t in found.trials.items()} == {0: "finished", 1: "running"}
    before = (place / "0" / "results.json").stat().st_mtime_ns

    code, said = here(*command)
    assert code == 1, said
    found = read_sweep(place)
    assert {n: t.state for n, t in found.trials.items()} == {
        0: "finished",
        1: "finished",
        2: "failed",
        3: "same",
        4: "finished",
    }
    assert found.trials[3].same_as == 0
    assert not (place / "3" / "results.json").exists()
    assert found.measured[3] == found.measured[0] != found.measured[1]
    assert "run.seed" in found.trials[2].reason
    assert "trial 2 failed: run.seed" in said
    # What was finished was left alone; what was begun went on from its checkpoint.
    assert (place / "0" / "results.json").stat().st_mtime_ns == before
    assert [started(place / n) for n in ("0", "1", "4")] == [1, 2, 1]
    for number in ("0", "1", "4"):
        results = json.loads((place / number / "results.json").read_text())
        assert [r["round"] for r in results["rounds"]] == [1, 2, 3]


def test_two_trials_at_once_do_not_clash(
    here: Callable[..., tuple[int, str]], job: list[str], tmp_path: Path
) -> None:
    place = tmp_path / "sweep"
    overrides = ("launch=joblib", "run.seed=0,1", "run.rounds=2", f"hydra.sweep.dir={place}")
    code, said = here("--multirun", *job, *overrides)
    assert code == 0, said
    spans = []
    for number in ("0", "1"):
        run = place / number
        assert len(json.loads((run / "results.json").read_text())["rounds"]) == 2
        assert verify(run).problems == []
        spans.append([(run / name).stat().st_mtime for name in ("config.yaml", "results.json")])
    assert max(begun for begun, _ in spans) < min(ended for _, ended in spans)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["run.rounds=0", "run.seed=0,1"], "fedaccord: run.rounds: must be"),
        (["run.seeds=0,1"], "fedaccord: run.seeds: there is no such key; did you mean run.seed?"),
        (["run.dir=x", "run.seed=0,1"], "fedaccord: run.dir: is set by the sweep"),
        (["sweep=nothing"], "fedaccord: sweep: there is no choice 'nothing'; choose one of "),
    ],
)
def test_a_wrong_sweep_is_one_line(
    tmp_path: Path, overrides: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = cli.main(["simulate", "-m", *overrides, f"hydra.sweep.dir={tmp_path / 's'}"])
    err = capsys.readouterr().err
    assert (code, err.count("\n")) == (2, 1), err
    assert err.startswith(line)
    assert not (tmp_path / "s").exists()


def test_another_sweep_keeps_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "note.txt").write_text("mine")
    assert cli.main(["simulate", "-m", "run.seed=0,1", f"hydra.sweep.dir={tmp_path}"]) == 2
    assert "holds other files" in capsys.readouterr().err
