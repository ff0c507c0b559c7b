"""The public names, a finished run as data frames, and strategies by name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import fedaccord
from common.errors import UserError
from fedaccord.simulation import as_overrides
from scripts.compose import compose_config
from strategies.robust.multi_krum import MultiKrum
from tests.small_run import PARTNERS, small_run


def test_importing_it_imports_nothing_heavy() -> None:
    code = "import sys, fedaccord; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    heavy = {"torch", "transformers", "flwr", "ray", "pandas", "numpy", "hydra", "pydantic"}
    assert not heavy & set(done.stdout.split())


def test_every_public_name_is_there() -> None:
    assert dir(fedaccord) == fedaccord.__all__
    for name in fedaccord.__all__:
        assert getattr(fedaccord, name).__class__ is not None
    with pytest.raises(AttributeError, match="no attribute 'simulat'"):
        fedaccord.simulat  # noqa: B018


def test_a_finished_run_is_data_frames(tmp_path: Path) -> None:
    run = fedaccord.Run.load(small_run(tmp_path / "run"))
    figures = json.loads((tmp_path / "run" / "results.json").read_text())
    final = figures["final"]
    assert list(run.rounds.index) == [1, 2, 3]
    assert run.rounds.loc[2, "accuracy"] == figures["rounds"][1]["accuracy"]
    partners = run.results.loc["partner"]
    assert tuple(partners.index) == PARTNERS
    for name in PARTNERS:
        assert partners.loc[name, "weight_share"] == final["partners"][name]["weight_share"]
    whole = run.results.loc[("federation", "")]
    assert (whole["accuracy"], whole["epsilon"]) == (final["accuracy"], final["epsilon"]["max"])
    assert list(run.results.loc["group"].index) == list(final["groups"])
    assert run.decisions.loc[(2, "c"), "outcome"] == "refused"
    assert len(run.decisions) == 9
    assert run.config.run.seed == 5
    assert f"accuracy={final['accuracy']:.4g}" in repr(run)


def test_a_folder_without_results_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no finished run; name the folder") as caught:
        fedaccord.Run.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_keys_and_values_are_overrides_that_mean_the_same() -> None:
    labels = ["no", "1", "true", "it's \\ [a], b"]
    overrides = as_overrides(
        {
            "privacy": "none",
            "strategy.robust": "median",
            "run.rounds": 4,
            "privacy.epsilon": 0.5,
            "tracking.tensorboard": False,
            "data.path": "my notes, ünd more=all.csv",
            "data.labels": labels,
            "model.revision": None,
        }
    )
    config = compose_config(overrides)
    assert not config.private
    assert config.strategy["robust"]["_target_"].endswith("Median")
    assert (config.run.rounds, config.privacy.epsilon) == (4, 0.5)
    assert config.tracking.tensorboard is False
    assert config.data.path == "my notes, ünd more=all.csv"
    assert config.data.labels == labels
    assert config.model.revision is None


def test_a_strategy_by_the_names_of_the_command_line() -> None:
    found = fedaccord.strategy(
        ["strategy.robust=multi_krum", "strategy.robust.f=2", "strategy.pre=[nnm]"],
        min_train_nodes=5,
    )
    assert found.pipeline.robust == MultiKrum(f=2)
    assert list(found.pipeline.pre) == ["nnm"]
    assert found._fedavg.min_train_nodes == 5
    for wrong, words in (
        (["run.rounds=3"], "run.rounds: does not belong to a strategy"),
        (["strategy.robust=nonsense"], "nonsense"),
        (["strategy=recommended"], "evaluate="),
        ("strategy=plain", "must be a list"),
    ):
        with pytest.raises(UserError, match=words):
            fedaccord.strategy(wrong)
