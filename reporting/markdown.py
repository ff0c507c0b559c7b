"""Markdown of the model card: tables, and figures and names as its cells show them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

# Characters that mean something within a line of Markdown.
SPECIAL = frozenset("\\`*_~[]()<>!&#:.@$|")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(escape(cell) for cell in line)} |" for line in lines]


def escape(text: str) -> str:
    """Our own text as one cell or heading: emphasis and code keep their meaning."""
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").split())


def literal(text: str) -> str:
    """A partner's word as Markdown shows it unchanged: no emphasis, link, image, code or HTML.

    As character references, which stand in tables as well as in headings; `.` and `:` would make
    links of bare addresses.
    """
    return "".join(f"&#{ord(c)};" if c in SPECIAL else c for c in text)


def code_list(names: Sequence[str]) -> str:
    """Names as code, separated by commas."""
    return ", ".join(f"`{' '.join(name.replace('`', chr(39)).split())}`" for name in names)


def percent(value: float | None) -> str:
    """0.7731 as 77.3 %; a dash where nothing was measured."""
    return "-" if value is None else f"{100 * value:.1f} %"


def noise(error: float | None) -> str:
    """The standard error of privacy noise behind a share; nothing where there is none."""
    return f" (noise ±{100 * error:.1f})" if error else ""


def noisy(value: float | None, error: float | None) -> str:
    """A share with the standard error of its privacy noise."""
    return percent(value) + noise(error)


def number(value: float | None) -> str:
    """Three decimals; a dash where nothing was measured."""
    return "-" if value is None else f"{value:.3f}"


def with_interval(value: float | None, interval: Sequence[float | None] | None) -> str:
    """A share with its 95 % interval, where there is one."""
    if value is None or interval is None or None in interval:
        return percent(value)
    low, high = interval
    return f"{100 * value:.1f} % [{100 * (low or 0):.1f}, {100 * (high or 0):.1f}]"


def points(value: float, interval: Sequence[float]) -> str:
    """A difference of shares with its 95 % interval, in percentage points."""
    low, high = interval
    return f"{100 * value:.1f} points [{100 * low:.1f}, {100 * high:.1f}]"
