"""Every error of the user is one clear line and exit code 2, before any partner is asked."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from common.errors import UserError
from scripts import cli
from scripts.compose import compose_config
from tests.e2e.conftest import Start, still_alive

pytestmark = pytest.mark.e2e


def fails(
    overrides: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> str:
    monkeypatch.setenv("FEDACCORD_CACHE", str(tmp_path / "cache"))
    code = cli.main(["simulate", *overrides, f"run.dir={tmp_path / 'run'}"])
    err = capsys.readouterr().err
    assert code == 2, err
    assert err.startswith("fedaccord: ")
    assert err.count("\n") == 1
    assert not (tmp_path / "run" / "checkpoints").exists()
    return err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["run.ronds=3"], ["run.ronds", "run.rounds"]),
        (["run.rounds=many"], ["run.rounds", "many"]),
        (["run.rounds=0"], ["run.rounds"]),
        (["privacy.mode=perhaps"], ["privacy.mode"]),
        (["model=nonsense"], ["nonsense"]),
        (["strategy.robust=nonsense"], ["nonsense"]),
        (["strategy.robust=multi_krum", "strategy.robust.f=2"], ["2f"]),
        (["strategy.robust=multi_krum", "strategy.robust.f=-1"], ["strategy.robust"]),
        (["data.columns.text=Notiz"], ["Notiz", "reviews.csv"]),
        (["data.labels=[gut,mittel]"], ["row", "Urteil"]),
        (["privacy.delta=0.01"], ["1 / number", "partner-1"]),
        (["train.batch_size=400"], ["partner-1", "train.batch_size"]),
        (["data.path=nowhere.csv"], ["nowhere.csv"]),
        (["run.resume=nowhere"], ["run.resume"]),
        (["privacy.epsilon=inf"], ["privacy.epsilon"]),
        (["strategy.robust=null"], ["strategy.robust", "trimmed_mean"]),
        (["strategy.robust=fltrust", "data.test_fraction=0"], ["strategy.robust"]),
        (["strategy.appeal=on", "data.test_fraction=0"], ["strategy.appeal"]),
        (["data.encoding=base64"], ["data.encoding"]),
        (["data.path=null"], ["data.path is not set"]),
        (["data.columns.text=Größe"], ["quotes"]),
    ],
)
def test_one_line_and_exit_code_2(
    job: list[str],
    change: list[str],
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    err = fails([*job, *change], capsys, monkeypatch, tmp_path)
    assert not [word for word in words if word not in err], err


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (",gut,Nord", ["row 3", "text"]),
        ('"fein, sehr",prima,Nord', ["row 3", "Urteil"]),
    ],
)
def test_bad_rows_are_named_without_their_content(
    job: list[str],
    row: str,
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(
        "Kommentar,Urteil,Haus\na,gut,Nord\nb,schlecht,Nord\n" + row + "\nc,gut,Nord\n",
        encoding="utf-8",
    )
    err = fails([*job, f"data.path={path}"], capsys, monkeypatch, tmp_path)
    assert "bad.csv" in err
    assert not [word for word in words if word not in err], err
    assert "fein" not in err
    assert "prima" not in err


# The first is noticed about when Ray begins to start, the second when it has.
@pytest.mark.parametrize(
    ("wrong", "begun"), [("data.path=nowhere.csv", set()), ("model.base=nowhere", {"gcs_server"})]
)
def test_workers_started_for_a_run_that_turns_out_impossible_end_with_it(
    start: Start, job: list[str], tmp_path: Path, wrong: str, begun: set[str]
) -> None:
    process = start(*job, wrong, f"run.dir={tmp_path / 'run'}")
    started: dict[int, psutil.Process] = {}
    names: set[str] = set()
    while process.poll() is None:
        with suppress(psutil.Error):
            for child in psutil.Process(process.pid).children(recursive=True):
                started[child.pid] = child
                names.add(child.name())
        time.sleep(0.02)
    assert process.returncode == 2
    assert "nowhere" in process.communicate()[1]
    assert begun <= names
    assert not still_alive(list(started.values()), 120)


def test_a_run_directory_that_is_not_one_is_left_alone(
    job: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / "precious").write_text("mine")
    assert "other files" in fails(job, capsys, monkeypatch, tmp_path)
    assert (tmp_path / "run" / "model" / "precious").read_text() == "mine"
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_another_configuration_does_not_overwrite_that_of_an_unfinished_run(
    job: list[str], tmp_path: Path
) -> None:
    from results.run_directory import claim
    from scripts.compose import load_config

    config = compose_config(job)
    claim(tmp_path / "run", config)
    (tmp_path / "run" / "checkpoints").mkdir()
    claim(tmp_path / "run", config)
    with pytest.raises(UserError, match="another configuration"):
        claim(tmp_path / "run", compose_config([*job, "run.rounds=7"]))
    assert load_config(tmp_path / "run" / "config.yaml").run.rounds == 3


@pytest.mark.parametrize("path", ["file", "file/below"])
def test_a_run_directory_that_cannot_be_made(
    job: list[str],
    path: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("FEDACCORD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "file").write_text("")
    assert cli.main(["simulate", *job, f"run.dir={tmp_path / path}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
