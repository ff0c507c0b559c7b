"""The division that a ledger row names: whatever can move a record to the other side is in it."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import client.division
from client.accounting import Segment, epsilon
from client.division import SAME_SIDE, TRAIN, VALIDATION, part
from client.ledger import Ledger, Spend
from common.config import Config
from common.data.load import training_table
from common.data.schema import Columns, DataConfig
from common.data.split import SPLIT_VERSION, split_partner

NAMES = sorted(
    {f.name for f in fields(DataConfig)} - {"columns"}
    | {f"columns.{f.name}" for f in fields(Columns)}
)


def changed(value: Any) -> Any:
    """Another value of the same kind."""
    match value:
        case bool():
            return not value
        case str() | None:
            return "another"
        case float() | int():
            return value + 1
        case list():
            return [*value, "another"]
        case dict():
            return {**value, "another": "value"}
        case _:
            raise AssertionError(f"what would another {type(value)} be?")


def with_other(name: str) -> Config:
    """The default configuration with another value of one field of `data`."""
    data = DataConfig()
    if name.startswith("columns."):
        inner = name.removeprefix("columns.")
        columns = replace(data.columns, **{inner: changed(getattr(data.columns, inner))})
        return Config(data=replace(data, columns=columns))
    return Config(data=replace(data, **{name: changed(getattr(data, name))}))


@pytest.mark.parametrize("name", NAMES)
def test_each_field_makes_another_division_or_is_listed_as_harmless(name: str) -> None:
    same = part(with_other(name), TRAIN) == part(Config(), TRAIN)
    assert same == (name in SAME_SIDE)


def test_the_list_names_real_fields_and_nothing_nested_escapes() -> None:
    assert set(NAMES) >= SAME_SIDE
    # A field that is a dataclass itself would have to be walked over as `columns` is.
    data = DataConfig()
    assert [f.name for f in fields(data) if is_dataclass(getattr(data, f.name))] == ["columns"]


def test_the_seed_and_the_rule_of_drawing_make_another_division(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = part(Config(), TRAIN)
    other = Config()
    other.run.seed = 1
    assert part(other, TRAIN) != here
    assert part(Config(), VALIDATION).partition("/")[0] == here.partition("/")[0]
    monkeypatch.setattr(client.division, "SPLIT_VERSION", SPLIT_VERSION + 1)
    assert part(Config(), TRAIN) != here


def test_a_record_that_changes_sides_with_the_text_column_is_charged_for_both(
    tmp_path: Path,
) -> None:
    """One file, two text columns: a record trains under one and validates under the other."""
    file = tmp_path / "notes.csv"
    rows = [f"first words {n},other words {n},{'yes' if n % 2 else 'no'}" for n in range(200)]
    file.write_text("\n".join(["body,summary,label", *rows]) + "\n")
    configs, validating = [], []
    for column in ("body", "summary"):
        data = DataConfig(source="csv", path=str(file), test_fraction=0.0, labels=["no", "yes"])
        data.columns.text, data.validation_fraction = column, 0.5
        table = training_table(data, tmp_path / "cache")
        chosen = split_partner(table, data.validation_fraction, 0).validation
        validating.append({int(table.rows[i]) for i in chosen})
        configs.append(Config(data=data))
    assert validating[0] - validating[1], "no record changed sides: the test shows nothing"
    train, told = Segment(0.8, 0.1, 20), Segment(1.5, 1.0, 1)
    with Ledger.open(tmp_path / "l.db", "d") as ledger:
        ledger.reserve(Spend("a", "1", [train], 1e-5, "", part(configs[0], TRAIN)), None)
        ledger.reserve(Spend("b", "2", [told], 1e-5, "", part(configs[1], VALIDATION)), None)
        assert ledger.epsilon(1e-5) == epsilon([train, told], 1e-5).value
