"""The range or the choices of a setting, written beside its field.

`number` and `choice` declare a dataclass field together with its limits; `check_limits` walks over
a tree of dataclasses and checks every value against them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, TypeVar

from common.errors import UserError

Number = TypeVar("Number", int, float, "int | None", "float | None")

_LIMIT = "limit"


@dataclass(frozen=True)
class Range:
    """Finite numbers from `low` to `high`; `low` itself is outside where `above` is set."""

    low: float
    high: float
    above: bool

    def problem(self, value: float) -> str | None:
        """What is wrong with `value`, to follow the key; None where nothing is."""
        inside = self.low < value if self.above else self.low <= value
        if inside and value <= self.high and math.isfinite(value):
            return None
        bracket = "(" if self.above else "["
        end = f"{self.high:g}]" if math.isfinite(self.high) else "inf)"
        return f"must be in {bracket}{self.low:g}, {end}, got {value:g}"


@dataclass(frozen=True)
class Choices:
    """A fixed list of names; `explained` says why others that a user may try are not in it."""

    names: tuple[str, ...]
    explained: Mapping[str, str]

    def problem(self, value: str) -> str | None:
        """What is wrong with `value`, to follow the key; None where nothing is."""
        if value in self.names:
            return None
        if value in self.explained:
            return self.explained[value]
        return f"must be one of {', '.join(self.names)}, got '{value}'"


def number(
    default: Number, low: float = 0.0, high: float = math.inf, *, above: bool = False
) -> Number:
    """A dataclass field that holds a number from `low` to `high`, or None where that is allowed.

    Args:
        default: the value of a field that is not given.
        low: the least number allowed, or with `above` the largest that is too small.
        high: the largest number allowed.
        above: whether the number must be above `low`.
    """
    limit: Any = field(default=default, metadata={_LIMIT: Range(low, high, above)})
    return limit  # type: ignore[no-any-return]


def choice(default: str, *others: str, explained: Mapping[str, str] | None = None) -> str:
    """A dataclass field that holds `default` or one of `others`.

    Args:
        default: the value of a field that is not given; the first of the choices.
        others: the other choices.
        explained: names that are refused, each with what is said instead of the list of choices.
    """
    limit: Any = field(
        default=default, metadata={_LIMIT: Choices((default, *others), explained or {})}
    )
    return limit  # type: ignore[no-any-return]


def check_limits(settings: object, prefix: str = "") -> None:
    """Check every value of a dataclass, and of the dataclasses within it, against its limits.

    Args:
        settings: an instance of a dataclass.
        prefix: the keys above it with a dot at the end, for messages.

    Raises:
        UserError: one line that names the key, for the first value outside its limits.
    """
    for key, value, limit in _limited(settings, prefix):
        if value is not None and (problem := limit.problem(value)) is not None:
            raise UserError(f"{key}: {problem}")


def _limited(settings: object, prefix: str) -> Iterator[tuple[str, Any, Range | Choices]]:
    """Key, value and limits of every field that has limits, in the order of the fields."""
    assert is_dataclass(settings)
    for one in fields(settings):
        value = getattr(settings, one.name)
        if is_dataclass(value):
            yield from _limited(value, f"{prefix}{one.name}.")
        elif _LIMIT in one.metadata:
            yield f"{prefix}{one.name}", value, one.metadata[_LIMIT]
