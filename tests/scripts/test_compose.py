"""Overrides to a typed configuration: old keys, and settings that are said once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from common.config import Config, config_hash, from_mapping, to_mapping
from common.config_file import read_config
from common.config_reader import schema_keys
from common.errors import UserError
from common.refusals import Reason, Refused
from common.renamed import RENAMED
from common.request import checked
from scripts import cli
from scripts.compose import compose_config

OLD_VALUES = {
    "privacy.clip": 3.0,
    "privacy.normalize": "auto_s",
    "train.batch": 64,
    "train.proximal": 0.1,
    "train.personal": 0.1,
    "train.upload": "int8",
}


def test_old_keys_are_gone_and_new_ones_exist() -> None:
    keys = schema_keys(Config)
    assert OLD_VALUES.keys() == RENAMED.keys()
    assert not RENAMED.keys() & keys
    assert set(RENAMED.values()) <= keys


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_key_on_the_command_line_is_answered_with_the_new_one(
    old: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code = cli.main(["simulate", f"{old}={OLD_VALUES[old]}", f"run.dir={tmp_path / 'run'}"])
    assert code == 2
    answer = capsys.readouterr().err
    assert answer.startswith(f"fedaccord: {old} is now {RENAMED[old]}")
    assert answer.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_an_old_key_without_other_values_is_answered_in_so_many_words() -> None:
    with pytest.raises(UserError) as caught:
        compose_config(["privacy.clip=3"])
    assert str(caught.value) == "privacy.clip is now privacy.max_grad_norm"
    with pytest.raises(UserError, match="auto_s is now automatic"):
        compose_config(["privacy.normalize=auto_s"])
    with pytest.raises(UserError, match=r"privacy\.clipping: .*'ghost'.*privacy\.grad_sample_mode"):
        compose_config(["privacy.clipping=ghost"])


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_key_in_a_file_is_answered_with_the_new_one(old: str, tmp_path: Path) -> None:
    section, _, name = old.partition(".")
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({section: {name: OLD_VALUES[old]}}))
    with pytest.raises(UserError) as caught:
        read_config(path)
    assert f"{path}: {old} is now {RENAMED[old]}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_key_in_a_request_is_refused_by_the_fixed_list(old: str) -> None:
    section, _, name = old.partition(".")
    with pytest.raises(Refused) as caught:
        checked(f'{{"{section}": {{"{name}": "c4n4ry"}}}}')
    assert caught.value.sentence == Reason.UNREADABLE.sentence(RENAMED[old])
    # The partner's own log.
    assert str(caught.value).startswith(f"{old} is now {RENAMED[old]}")
    assert "c4n4ry" not in str(caught.value)


def tolerated(config: Config) -> Iterator[object]:
    """Every stage's number of malicious partners."""
    for stage in (config.strategy["robust"], *config.strategy["pre"].values()):
        if "f" in stage:
            yield stage["f"]


def test_the_number_of_malicious_partners_is_said_once() -> None:
    rules = ["strategy.robust=trimmed_mean", "strategy.pre=[arc,nnm]"]
    assert list(tolerated(compose_config(rules))) == [1, 1, 1]
    assert list(tolerated(compose_config([*rules, "strategy.f=3"]))) == [3, 3, 3]
    assert list(tolerated(compose_config(["strategy=recommended"]))) == [2, 2, 2]
    assert list(tolerated(compose_config(["strategy=recommended", "strategy.f=1"]))) == [1, 1, 1]
    # One stage can still differ.
    one = compose_config(["strategy=recommended", "strategy.robust.f=1"])
    assert list(tolerated(one)) == [1, 2, 2]


def test_saying_it_once_is_the_same_run_as_saying_it_for_each_stage() -> None:
    rules = ["strategy.robust=krum", "strategy.pre=[nnm]"]
    each = compose_config([*rules, "strategy.robust.f=2", "strategy.pre.nnm.f=2"])
    assert config_hash(compose_config([*rules, "strategy.f=2"])) == config_hash(each)


def test_the_split_seed_is_part_of_a_run_only_where_it_is_set() -> None:
    config = compose_config([])
    tree = to_mapping(config)
    del tree["data"]["split_seed"]
    assert config_hash(from_mapping(tree)) == config_hash(config)
    other = dataclasses.replace(config, data=dataclasses.replace(config.data, split_seed=3))
    assert config_hash(other) != config_hash(config)
    assert compose_config(["run.seed=5"]).split_seed == 5
    assert compose_config(["run.seed=5", "data.split_seed=2"]).split_seed == 2
