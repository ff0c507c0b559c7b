"""Text as a quoted value in Hydra's override grammar."""

from __future__ import annotations

import re

# Hydra reads a backslash as itself, except directly before a quote.
_BEFORE_QUOTE = re.compile(r"(\\*)('|\Z)")


def quoted(text: str) -> str:
    """`text` in single quotes, so that Hydra reads exactly `text`."""
    return f"'{_BEFORE_QUOTE.sub(_escaped, text)}'"


def _escaped(match: re.Match[str]) -> str:
    return 2 * match[1] + ("\\'" if match[2] else "")
