"""The normal form in which names and texts are compared."""

from __future__ import annotations

import re
import unicodedata

# Control characters but for white space (category Cc), and format characters (Cf), which show
# nothing: zero-width spaces and joiners, soft hyphens, marks of order and direction, tags.  One
# pattern, because a look at every character in turn would take longer than reading the file.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2"
    "\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb\U000110bd"
    "\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001"
    "\U000e0020-\U000e007f]"
)


def visible(text: str) -> str:
    """``text`` without control and format characters; white space stays."""
    return _INVISIBLE.sub("", text)


def normal_form(text: str, fold_case: bool = False) -> str:
    """``text`` in NFC, without control and format characters, with single spaces alone.

    Args:
        text: Any text.
        fold_case: Whether upper and lower case are the same.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    text = visible(text)
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
