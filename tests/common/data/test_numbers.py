"""Numbers as text: decimal commas, signs between thousands, and what could be either."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.data.numbers import parse_number
from common.data.reader import read
from common.data.schema import DataConfig
from common.errors import UserError


def settings(folder: Path, cells: list[str], **changes: object) -> DataConfig:
    path = folder / "n.csv"
    path.write_text("text;label\n" + "".join(f"x{i};{cell}\n" for i, cell in enumerate(cells)))
    fields = {"delimiter": ";", "target": "number", "bounds": [0.0, 2000.0], **changes}
    return DataConfig(source="csv", path=str(path), **fields)  # type: ignore[arg-type]


def numbers(config: DataConfig) -> list[float]:
    targets = read(config).targets
    assert targets is not None
    return [round(float(t) * 1000 + 1000, 2) for t in targets[:, 0]]


@pytest.mark.parametrize(
    ("text", "decimal", "number"),
    [
        ("1.5", None, 1.5),
        ("-2e3", None, -2000.0),
        ("1,5", ",", 1.5),
        ("1.234,5", ",", 1234.5),
        ("1.234", ",", 1234.0),
        ("1,234.5", ".", 1234.5),
        ("1.234", ".", 1.234),
        (" 7 ", ",", 7.0),
    ],
)
def test_numbers_are_read_by_their_decimal_sign(
    text: str, decimal: str | None, number: float
) -> None:
    assert parse_number(text, decimal) == number


@pytest.mark.parametrize(
    ("text", "decimal"), [("1,5", None), ("1,5,6", ","), ("12.34,5", ","), ("x", "."), ("", None)]
)
def test_what_is_no_number(text: str, decimal: str | None) -> None:
    with pytest.raises(ValueError, match="the value "):
        parse_number(text, decimal)


def test_a_point_that_could_be_between_thousands_is_asked_about(tmp_path: Path) -> None:
    cells = ["567", "1.234", "89"]
    with pytest.raises(UserError, match=r"row 2 \(line 3\), column 'label': the point of this"):
        read(settings(tmp_path, cells))
    assert numbers(settings(tmp_path, cells, decimal=",")) == [567.0, 1234.0, 89.0]
    assert numbers(settings(tmp_path, cells, decimal=".")) == [567.0, 1.23, 89.0]
    assert numbers(settings(tmp_path, [*cells, "0.5"])) == [567.0, 1.23, 89.0, 0.5]
    assert numbers(settings(tmp_path, ["1.234", "2.346"])) == [1.23, 2.35]


def test_a_decimal_comma_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"row 1 .*: the value has a comma: set data\.decimal"):
        read(settings(tmp_path, ["1,5"]))
    with pytest.raises(UserError, match=r"data\.decimal must be"):
        read(settings(tmp_path, ["1,5"], decimal=";"))
