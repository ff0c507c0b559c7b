"""A pipeline that reads what the run cannot supply is refused before the first round."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from common.errors import UserError
from scripts.compose import compose_config
from server.testset import check_supplied
from strategies.build import build


def _check(overrides: list[str], cache: Path) -> None:
    path = cache / "rows.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            [["text", "label", "ward"], *([f"row {i}", i % 2, i % 3] for i in range(40))]
        )
    data = ["data=csv", f"data.path={path}", "data.labels=['0','1']", f"run.cache_dir={cache}"]
    config = compose_config([*data, *overrides])
    check_supplied(build(config.strategy), config, "data.test_path")


@pytest.mark.parametrize(
    ("stage", "override"), [("robust", "strategy/robust=fltrust"), ("appeal", "strategy/appeal=on")]
)
def test_rules_that_read_public_rows_need_some(stage: str, override: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"strategy\.{stage}: needs .*\(data\.test_path\)"):
        _check([override, "data.test_fraction=0"], tmp_path)
    _check([override, "data.test_fraction=0.2"], tmp_path)


def test_fairfed_needs_a_column_of_groups(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.columns\.groups"):
        _check(["strategy/fair=fairfed"], tmp_path)
    _check(["strategy/fair=fairfed", "data.columns.groups=[ward]"], tmp_path)
