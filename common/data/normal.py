"""The normal form in which names and texts are compared."""

from __future__ import annotations

import re
import unicodedata

# Control characters, and format characters that show nothing: zero-width spaces and joiners, soft
# hyphens, marks of byte order and direction, tags.
_INVISIBLE = ("Cc", "Cf")


def visible(text: str) -> str:
    """``text`` without control and format characters; white space stays."""
    if text.isprintable():
        return text
    return "".join(c for c in text if c.isspace() or unicodedata.category(c) not in _INVISIBLE)


def normal_form(text: str, fold_case: bool = False) -> str:
    """``text`` in NFC, without control and format characters, with single spaces alone.

    Args:
        text: Any text.
        fold_case: Whether upper and lower case are the same.
    """
    if not (text.isascii() and text.isprintable()):
        text = unicodedata.normalize("NFC", visible(text))
    text = " ".join(text.split())
    return text.casefold() if fold_case else text


def whole_number(name: str) -> str | None:
    """The plain decimal form of a whole number such as ``1``, ``-1`` or ``1.0``, else None."""
    found = re.fullmatch(r"([+-]?)0*(\d+)(?:\.0+)?", name, flags=re.ASCII)
    if found is None:
        return None
    sign = "-" if found[1] == "-" and found[2] != "0" else ""
    return sign + found[2]


def one_letter_apart(first: str, second: str) -> bool:
    """Whether one insertion, deletion or replacement of a letter makes the texts equal."""
    if len(first) > len(second):
        first, second = second, first
    if len(second) - len(first) > 1 or first == second:
        return False
    start = next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), None)
    start = len(first) if start is None else start
    skip = 1 if len(first) == len(second) else 0
    letters = first[start : start + skip] + second[start : start + 1]
    return letters.isalpha() and first[start + skip :] == second[start + 1 :]
