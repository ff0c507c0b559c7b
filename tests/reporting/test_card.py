"""The model card: valid for the hub, true to the results, without private or local things."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard

from common.config import Config
from reporting.card import model_card
from results.history import History, RoundRecord
from results.schema import results
from scripts.compose import compose_config
from scripts.configure import configure
from tests.small_run import PARTNERS, evaluation, report, small_run


def job(*overrides: str) -> Config:
    return compose_config(["data.labels=[no,yes]", *overrides])


def measured(groups: dict[str, np.ndarray] | None = None) -> dict[str, Any]:
    test = evaluation()
    if groups is not None:
        test = replace(test, groups=groups)
    history = History(rounds=[RoundRecord(1, refused=2), RoundRecord(2)])
    return results(history, [report(name) for name in PARTNERS], test, 3, "c0ffee" * 10)


def test_the_hub_reads_it() -> None:
    found = measured()
    card = ModelCard(model_card(job(), found, simulated=True), ignore_metadata_errors=False)
    assert card.data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert card.data.license == "apache-2.0"
    assert card.data.pipeline_tag == "text-classification"
    assert "differential-privacy" in card.data.tags
    scores = {e.metric_type: e.metric_value for e in card.data.eval_results}
    assert scores["accuracy"] == pytest.approx(found["final"]["accuracy"], abs=1e-4)
    assert scores["f1"] == pytest.approx(found["final"]["macro_f1"], abs=1e-4)
    assert card.data.model_name == "fedaccord-c0ffeec0"


def test_a_tagger_is_no_classifier_to_the_hub() -> None:
    config = job()
    config.task, config.model.head = "ner", "token"
    card = ModelCard(model_card(config, measured(), True), ignore_metadata_errors=False)
    assert card.data.pipeline_tag == "token-classification"
    assert {e.task_type for e in card.data.eval_results} == {"token-classification"}


def test_it_says_what_the_results_say() -> None:
    found = measured()
    config = job("strategy.robust=median")
    config.strategy["pre"] = {"mixing": {"_target_": "strategies.pre.nnm.NNM", "f": 2}}
    text = model_card(config, found, simulated=True)
    assert "ε = 1.500" in text
    assert "asked for: 8" in text
    assert "3 partners held 300 training rows" in text
    accuracy = found["final"]["accuracy"]
    assert f"| accuracy on 200 held-out rows | {100 * accuracy:.1f} % |" in text
    gap = found["final"]["fairness"]["groups"]["g"]["gaps"]["equal_opportunity"]
    assert f"{100 * gap['value']:.1f} points [{100 * gap['interval'][0]:.1f}" in text
    assert "Median (f = 1)" in text
    assert "| before merging | NNM (f = 2) |" in text
    assert "tolerate 1 malicious" in text
    assert "2 update(s) were refused" in text
    assert "drawn from a seed" in text
    assert "drawn from a seed" not in model_card(job(), found, simulated=False)


def test_no_privacy_and_an_attack_are_said_in_bold() -> None:
    config = job("privacy=none", "attack=alie", "attack.count=2")
    text = model_card(config, measured(), simulated=True)
    assert "**No guarantee.**" in text
    assert "**without** differential privacy" in text
    assert "**This model was trained under a simulated attack**: ALIE (tau = 1.5) by 2" in text
    assert "ε =" not in text


def test_no_groups_small_groups_and_odd_names(tmp_path: Path) -> None:
    table = np.array([[40.0, 10.0], [10.0, 40.0]])
    assert "No group column" in model_card(job(), measured({}), simulated=True)
    groups = {"g=a|b\n<c>": table, "g=tiny": np.eye(2)}
    text = model_card(job(), measured(groups), simulated=True)
    assert "a&#124;b &#60;c&#62;" in text
    assert "tiny (too few rows)" in text
    assert "too few rows to compare" in text
    local = job(f"model.base={tmp_path}", "data=csv", f"data.path={tmp_path}/notes.csv")
    text = model_card(local, measured(), simulated=True)
    assert str(tmp_path) not in text
    assert ModelCard(text).data.base_model is None


def test_a_copied_configuration_is_the_same_run(tmp_path: Path) -> None:
    run = small_run(tmp_path / "run")
    (tmp_path / "again").mkdir()
    (tmp_path / "again/config.yaml").write_bytes((run / "config.yaml").read_bytes())
    config = configure([f"run.resume={tmp_path / 'again'}"])
    assert config.run.dir == str(tmp_path / "again")
    assert config.run.seed == 5
