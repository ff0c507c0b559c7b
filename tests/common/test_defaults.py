"""conf/ and the dataclasses give every setting the same default.

`fedaccord partner check`, tests and Python callers start from the dataclasses, a run starts from
conf/: where the two differ, what was checked is not what is trained.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.config import Config, to_mapping
from common.data.schema import DataConfig
from scripts.compose import CONF, compose_config

# What belongs to the default job and not to a setting: its data, who has them, and the stages,
# which have classes of their own (see below).
OF_THE_JOB = (
    "attack",
    "data.columns.groups",
    "data.group_values",
    "data.labels",
    "data.test_by",
    "data.test_rows",
    "partition.blocks",
    "strategy",
)
# Stages whose file in conf/ is tuned for the default job, where the class has textbook values.
TUNED = {"fedavgm.yaml": {"lr", "momentum", "decay"}}
# Set by the pipeline, not by users.
DERIVED = {"default.yaml": {"required"}}
MODEL_KEYS = {
    *("model.base", "model.head", "model.head_scale", "model.drop_layers", "model.layers"),
    *("model.trainable", "model.max_length", "model.truncation", "privacy.max_grad_norm"),
    *(f"model.lora.{key}" for key in ("r", "alpha", "targets", "factors")),
}
STAGES = sorted(path for group in ("strategy/*", "attack") for path in CONF.glob(f"{group}/*.yaml"))


def leaves(tree: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from leaves(value, f"{prefix}{key}.")
    else:
        yield prefix[:-1], tree


def test_the_composed_default_equals_the_dataclasses() -> None:
    composed = dict(leaves(to_mapping(compose_config([]))))
    declared = dict(leaves(to_mapping(Config())))
    differing = {
        key
        for key in composed.keys() | declared.keys()
        if composed.get(key, "missing") != declared.get(key, "missing")
    }
    assert {key for key in differing if not key.startswith(OF_THE_JOB)} == set()
    # No exception that is none.
    assert [name for name in OF_THE_JOB if not any(k.startswith(name) for k in differing)] == []


def test_every_setting_of_the_data_layer_is_listed_with_its_default() -> None:
    listed = dict(leaves(yaml.safe_load((CONF / "data" / "base.yaml").read_text())))
    declared = dict(leaves(dataclasses.asdict(DataConfig())))
    # Empty mappings are set with +data.group_values.COLUMN=[...].
    del declared["group_values"]
    assert listed == declared


@pytest.mark.parametrize("path", sorted(CONF.glob("model/*.yaml")), ids=lambda path: path.stem)
def test_what_belongs_to_a_model_is_set_with_the_model(path: Path) -> None:
    """Otherwise a second model would run with what was tuned for the first."""
    assert dict(leaves(yaml.safe_load(path.read_text()))).keys() >= MODEL_KEYS


def test_each_model_has_a_clipping_norm_of_its_own_which_an_override_replaces() -> None:
    def norm(*overrides: str) -> float:
        return compose_config(overrides).privacy.max_grad_norm

    assert norm() == norm("privacy=epsilon_3") == norm("privacy=none") == 17.0
    assert norm("model=bert_base") == norm("model=bert_base", "privacy=epsilon_1") == 1.0
    assert norm("model=bert_base", "privacy.max_grad_norm=3") == 3.0
    assert norm("privacy.max_grad_norm=3", "privacy=epsilon_8") == 3.0


@pytest.mark.parametrize("path", STAGES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_file_of_a_stage_holds_the_defaults_of_its_class(path: Path) -> None:
    tree = yaml.safe_load(path.read_text()) or {}
    sections = [tree] if "_target_" in tree else [s for s in tree.values() if isinstance(s, dict)]
    for settings in (section for section in sections if section["_target_"] is not None):
        module, _, name = settings["_target_"].rpartition(".")
        given = {k: v for k, v in settings.items() if k not in ("_target_", "partners", "count")}
        defaults = _defaults(getattr(importlib.import_module(module), name))
        assert given.keys() == defaults.keys() - DERIVED.get(path.name, set())
        differing = {key for key, value in given.items() if value != defaults[key]}
        assert differing - {"f"} == TUNED.get(path.name, set())
        # Said once, for all stages.
        assert given.get("f", "${strategy.f}") == "${strategy.f}"


def _defaults(kind: Any) -> dict[str, object]:
    return {f.name: f.default for f in dataclasses.fields(kind) if f.init}
