"""Checks of hyper-parameters (ValueError) and of the preconditions on n and f (UserError)."""

from __future__ import annotations

import math

from common.errors import UserError


def whole(name: str, value: int, low: int) -> None:
    """Raise ValueError unless ``value`` is an integer of at least ``low``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name}: must be a whole number, got {value!r}")
    if value < low:
        raise ValueError(f"{name}: must be >= {low}, got {value}")


def number(
    name: str,
    value: float,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    above: bool = False,
    below: bool = False,
) -> None:
    """Raise ValueError unless ``value`` lies between ``low`` and ``high``.

    The ends belong to the range; ``above`` leaves out the lower and ``below`` the upper end.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{name}: must be a finite number, got {value!r}")
    if value < low or (above and value == low):
        raise ValueError(f"{name}: must be {'>' if above else '>='} {low:g}, got {value:g}")
    if value > high or (below and value == high):
        raise ValueError(f"{name}: must be {'<' if below else '<='} {high:g}, got {value:g}")


def need(rule: str, n: int, f: int, least: int, formula: str) -> None:
    """Raise UserError unless ``n`` >= ``least``, the rule's precondition ``formula`` in words."""
    if n < least:
        raise UserError(f"{rule} needs {formula}, that is {least} partners: n={n}, f={f}")


def majority(rule: str, n: int, f: int) -> None:
    """Raise UserError unless n > 2f."""
    need(rule, n, f, 2 * f + 1, "n > 2f")
