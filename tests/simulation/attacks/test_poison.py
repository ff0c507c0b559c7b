"""Data attacks change what they say, and only where they are told to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from common.config import Config, malicious
from common.data.reader import read
from common.data.schema import Columns, DataConfig
from common.data.table import Table
from common.errors import UserError
from simulation.attacks.backdoor import Backdoor
from simulation.attacks.label_flip import LabelFlip
from simulation.attacks.poison import poisoned


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_label_flip() -> None:
    texts, labels = LabelFlip(3).poison(["a", "b", "c"], [0, 1, 2], generator())
    assert (texts, labels) == (["a", "b", "c"], [2, 1, 0])


def test_backdoor_poisons_the_said_part_and_measures_its_success() -> None:
    attack = Backdoor(trigger="zq", target=1, fraction=0.25)
    texts, labels = attack.poison([f"t{i}" for i in range(40)], [0] * 40, generator())
    stamped = [i for i, t in enumerate(texts) if t.startswith("zq ")]
    assert len(stamped) == 10
    assert texts[stamped[0]] == f"zq t{stamped[0]} zq"
    assert [labels[i] for i in stamped] == [1] * 10
    assert sum(labels) == 10
    assert attack.success_rate([1, 1, 0, 1], [0, 1, 0, 0]) == pytest.approx(2 / 3)
    assert attack.success_rate([1], [1]) == 0.0


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (Backdoor, {"trigger": " "}, "trigger: must not be empty"),
        (Backdoor, {"fraction": 0.0}, "fraction: must be in"),
        (LabelFlip, {"classes": 1}, "classes: must be >= 2"),
    ],
)
def test_settings_out_of_range(kind: type, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**settings)


@pytest.fixture
def rows(tmp_path: Path) -> Table:
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "".join(f"row {i},{i % 2}\n" for i in range(10)))
    return read(DataConfig(source="csv", path=str(path), columns=Columns(), labels=["0", "1"]))


def attacked(**attack: object) -> Config:
    return Config(attack={"_target_": "simulation.attacks.label_flip.LabelFlip", **attack})


def test_only_the_malicious_are_poisoned(rows: Table) -> None:
    config = attacked(count=1)
    bad = poisoned(rows, "a", ["a", "b"], config)
    assert np.array_equal(bad.labels, 1 - rows.labels)
    assert list(bad.texts) == list(rows.texts)
    assert poisoned(rows, "b", ["a", "b"], config) is rows
    assert poisoned(rows, "a", ["a", "b"], Config()) is rows


def test_an_attack_on_updates_leaves_rows_alone(rows: Table) -> None:
    config = Config(attack={"_target_": "strategies.attacks.ipm.IPM", "count": 1})
    assert poisoned(rows, "a", ["a", "b"], config) is rows


def test_only_the_named_package_is_instantiated(rows: Table) -> None:
    config = Config(attack={"_target_": "simulation.shares.PartnerShare", "count": 1})
    with pytest.raises(UserError, match=r"attack\._target_"):
        poisoned(rows, "a", ["a", "b"], config)


def test_who_attacks() -> None:
    everyone = ["c", "a", "b"]
    assert malicious(attacked(count=2), everyone) == ["a", "b"]
    assert malicious(attacked(partners=["c"]), everyone) == ["c"]
    assert malicious(Config(), everyone) == []
    with pytest.raises(UserError, match="no partner z"):
        malicious(attacked(partners=["z"]), everyone)
    with pytest.raises(UserError, match="honest"):
        malicious(attacked(count=3), everyone)
