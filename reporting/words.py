"""Figures as text, in one format for all reports; a figure that was not measured is a dash."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def percent(value: float | None, error: float | None = 0.0) -> str:
    """0.7731 as 77.3 %, on one line; with the standard error of a private figure's noise."""
    if value is None:
        return "-"
    return f"{100 * value:.1f}{_noise(error, 100.0, 1)}\u00a0%"


def decimal(value: float | None, error: float | None = 0.0) -> str:
    """Four digits."""
    return "-" if value is None else f"{value:.4f}{_noise(error, 1.0, 4)}"


def points(value: float | None, error: float | None = 0.0) -> str:
    """A difference of shares in percentage points."""
    return "-" if value is None else f"{100 * value:.1f}{_noise(error, 100.0, 1)}\u00a0points"


def count(value: float, error: float | None = 0.0) -> str:
    """A number of texts."""
    return f"{value:,.0f}{_noise(error, 1.0, 0)}"


def _noise(error: float | None, unit: float, digits: int) -> str:
    """± the standard error; nothing for an exact figure, a question mark where it is unknown."""
    if error is None:
        return "\u00a0±\u00a0?"
    return f"\u00a0±\u00a0{unit * error:,.{digits}f}" if error > 0 else ""


def known(ends: Sequence[float | None]) -> tuple[float, float] | None:
    """An interval that was measured, else None."""
    low, high = ends
    return None if low is None or high is None else (low, high)


def interval(ends: Sequence[float | None]) -> str:
    """An interval of shares in percentage points."""
    found = known(ends)
    return "-" if found is None else f"[{100 * found[0]:.1f}, {100 * found[1]:.1f}]"


def power(value: float) -> str:
    """0.00001 as 10⁻⁵, 0.00025 as 2.5·10⁻⁴."""
    if value <= 0:
        return f"{value:g}"
    mantissa, exponent = f"{value:.2e}".split("e")
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    front = f"{float(mantissa):g}"
    return f"10{raised}" if front == "1" else f"{front}·10{raised}"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def memory(count: float) -> str:
    """Bytes in the unit that fits."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} B"


def stage(settings: Mapping[str, Any] | None) -> str:
    """`strategies.robust.krum.Krum` and f=1 as "Krum (f = 1)"; who attacks is left out."""
    if not settings:
        return "none"
    left_out = ("_target_", "partners", "count")
    given = ", ".join(f"{k} = {v}" for k, v in settings.items() if k not in left_out)
    return f"{str(settings['_target_']).rpartition('.')[2]}{f' ({given})' if given else ''}"
