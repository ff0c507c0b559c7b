"""What the coordinator refuses before it submits a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import UserError
from deployment.submission import check, prepare
from results.run_directory import settle
from scripts.compose import compose_config

FILE = ["data=csv", "data.path=null", "data.labels=[bad,good]", "run.partners=3"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["attack=alie"], "attack: is possible in simulations only; use attack=none"),
        (["data.labels=[]"], "data.labels: is missing; name the labels in order"),
        (["run.partners=0"], "run.partners: must be at least 1"),
    ],
)
def test_a_run_that_no_partner_could_serve_is_one_line(
    overrides: list[str], message: str, tmp_path: Path
) -> None:
    config = compose_config([*FILE, *overrides])
    with pytest.raises(UserError) as caught:
        check(config)
    assert str(caught.value).startswith(message)
    directory = tmp_path / "run"
    with pytest.raises(UserError):
        prepare(settle(config, directory))
    assert not directory.exists()


def test_a_finished_run_is_not_submitted_again(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(UserError, match="holds a finished run; choose a new folder"):
        prepare(settle(compose_config(FILE), tmp_path))
