"""Text from another machine, made safe for a terminal, a log and a file that people read.

Terminals obey control characters (ESC begins commands that rewrite the screen), and bidirectional
controls (U+202E and its kind) change the order in which the letters after them are shown.
Zero-width characters make two different names look the same.  None of them survives here.
"""

from __future__ import annotations

import logging
import unicodedata
from copy import copy

LONGEST_NAME = 200
LONGEST_REASON = 400
LONGEST_ENTRY = 500
REPLACEMENT = "?"


def is_printable(character: str) -> bool:
    """Whether a terminal shows the character and does nothing else with it.

    Unlike `str.isprintable`, this holds for every space that stays on its line (U+00A0).
    """
    return character.isprintable() or unicodedata.category(character) == "Zs"


def printable(text: str) -> str:
    """`text` in one line: line breaks and tabs become spaces, other unprintable characters `?`."""
    if text.isprintable():
        return text
    return "".join(
        c if is_printable(c) else " " if c in "\t\n\r\v\f\u2028\u2029\x85" else REPLACEMENT
        for c in text
    )


def printable_lines(text: str) -> str:
    """`text` with its line breaks (LF alone) kept."""
    return "\n".join(map(printable, text.split("\n")))


def short_name(text: str) -> str:
    """A name of at most `LONGEST_NAME` printable characters."""
    return printable(text[:LONGEST_NAME])


def short_entry(text: str) -> str:
    """An entry of a log in one line of at most `LONGEST_ENTRY` printable characters."""
    return printable(text if len(text) <= LONGEST_ENTRY else f"{text[:LONGEST_ENTRY]}…")


def short_reason(text: str | None) -> str:
    """The first line of a reason, of at most `LONGEST_REASON` printable characters."""
    line = next(iter((text or "").strip().splitlines()), "") or "no reason given"
    return "".join(c if is_printable(c) else REPLACEMENT for c in line[:LONGEST_REASON])


class PrintableFormatter(logging.Formatter):
    """One line for each message, whatever its arguments hold; a traceback keeps its lines."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The entry; the lines of its traceback are indented, so that none looks like an entry."""
        plain = copy(record)
        plain.msg, plain.args = printable(record.getMessage()), None
        return printable_lines(super().format(plain)).replace("\n", "\n    ")


def log_printable(level: int) -> None:
    """Log to standard error from `level` on, through `PrintableFormatter`."""
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter())
    logging.basicConfig(level=level, handlers=[handler])
