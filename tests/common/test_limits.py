"""Every field's limits are checked, by one walk, with one line that names the key."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from common.errors import UserError
from common.limits import check_limits, choice, number


@dataclass
class Inner:
    share: float = number(0.5, 0, 1, above=True)
    budget: float | None = number(None, above=True)


@dataclass
class Outer:
    steps: int = number(1, 1)
    kind: str = choice("flat", "round", explained={"square": "square was never finished"})
    inner: Inner = field(default_factory=Inner)


def test_defaults_and_bounds_are_within_the_limits() -> None:
    for good in (Outer(), Outer(1, "round", Inner(1.0, 1e300)), Outer(inner=Inner(1e-300))):
        check_limits(good)
    assert Outer() == Outer(steps=1, kind="flat", inner=Inner(share=0.5, budget=None))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Outer(steps=0), "steps: must be in [1, inf), got 0"),
        (Outer(inner=Inner(share=0.0)), "inner.share: must be in (0, 1], got 0"),
        (Outer(inner=Inner(share=1.5)), "inner.share: must be in (0, 1], got 1.5"),
        (Outer(inner=Inner(share=float("nan"))), "inner.share: must be in (0, 1], got nan"),
        (Outer(inner=Inner(budget=float("inf"))), "inner.budget: must be in (0, inf), got inf"),
        (Outer(kind="oval"), "kind: must be one of flat, round, got 'oval'"),
        (Outer(kind="square"), "kind: square was never finished"),
    ],
)
def test_a_value_outside_is_one_line(wrong: Outer, message: str) -> None:
    with pytest.raises(UserError) as caught:
        check_limits(wrong)
    assert str(caught.value) == message
