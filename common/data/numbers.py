"""Numbers as text: which sign is the decimal point."""

from __future__ import annotations

import re

DECIMALS = (".", ",")
# "1.234" is 1234 to one half of the world and a little over 1 to the other.
_THOUSANDS = {
    ".": re.compile(r"[+-]?[1-9]\d{0,2}(\.\d{3})+", re.ASCII),
    ",": re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+", re.ASCII),
}


def parse_number(text: str, decimal: str | None) -> float:
    """The number that a text stands for.

    Args:
        text: A number as a file has it, with or without signs between thousands.
        decimal: The decimal sign, "." or ","; None takes a point, and no sign between thousands.

    Raises:
        ValueError: With what is wrong, where the text is no number.
    """
    text = text.strip()
    if decimal is not None:
        other = DECIMALS[1 - DECIMALS.index(decimal)]
        whole, point, rest = text.partition(decimal)
        if other in whole and not _THOUSANDS[other].fullmatch(whole):
            raise ValueError("the value is not a number")
        text = whole.replace(other, "") + ("." if point else "") + rest
    try:
        return float(text)
    except ValueError:
        pass
    if decimal is None and "," in text:
        raise ValueError("the value has a comma: set data.decimal to the decimal sign")
    raise ValueError("the value is not a number")


def could_be_thousands(text: str) -> bool:
    """Whether a text such as ``1.234`` could be a whole number with a point between thousands."""
    return _THOUSANDS["."].fullmatch(text.strip()) is not None
