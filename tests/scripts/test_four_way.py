"""`fedaccord four-way`: what it refuses before anything is run, and what makes a study."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.errors import UserError
from scripts import cli
from scripts.compose import compose_config
from sweeps.fourway import CELLS
from sweeps.fourway_plan import cell_overrides, plan

DEFAULTS = {
    "dp": "privacy=dp",
    "attack": "attack=optimal_alie attack.count=2",
    "fair": "strategy.fair=qffl",
}


def test_cells_differ_in_what_they_say_and_in_nothing_else() -> None:
    document = plan(["privacy.epsilon=3", "strategy=recommended"], [0], DEFAULTS, compose_config)
    assert len(set(document["composed"].values())) == 8
    for cell in CELLS:
        config = compose_config(cell_overrides(document, cell))
        assert config.private == cell.dp
        assert config.attack.get("count") == (2 if cell.attack else 0)
        fair = config.strategy["fair"]["_target_"]
        assert fair.endswith("QFFL" if cell.fair else "Uniform")
        assert config.strategy["robust"]["_target_"].endswith("TrimmedMean")
        assert config.privacy.epsilon == 3


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["privacy=none"], ["--dp"]),
        (["+attack=alie"], ["--attack"]),
        (["attack.count=1"], ["--attack"]),
        (["strategy/fair=afl"], ["--fair"]),
        (["strategy.fair=afl"], ["--fair"]),
        (["run.seed=3"], ["--seeds"]),
        (["run.dir=here"], ["--dir"]),
        (["run.ronds=3"], ["run.rounds"]),
        (["--seeds", "1,1"], ["--seeds"]),
        (["--seeds", "a"], ["--seeds"]),
        (["--fair", "strategy.fair=uniform"], ["--fair"]),
        (["--dp", "privacy=none"], ["--dp"]),
        (["--attack", "attack=none"], ["--attack"]),
    ],
)
def test_one_line_and_nothing_run(
    overrides: list[str], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "study"
    assert cli.main(["four-way", "--dir", str(study), *overrides]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert not [word for word in words if word not in error], error
    assert not study.exists()


def test_a_folder_of_another_study_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = plan(["run.rounds=7"], [0], DEFAULTS, compose_config)
    (tmp_path / "fourway.json").write_text(json.dumps(other))
    assert cli.main(["four-way", "--dir", str(tmp_path)]) == 2
    assert "another study" in capsys.readouterr().err
    (tmp_path / "fourway.json").rename(tmp_path / "precious")
    assert cli.main(["four-way", "--dir", str(tmp_path)]) == 2
    assert "other files" in capsys.readouterr().err


def test_a_wrong_key_names_itself() -> None:
    with pytest.raises(UserError, match="no_such"):
        plan([], [0], {**DEFAULTS, "attack": "attack=no_such"}, compose_config)
