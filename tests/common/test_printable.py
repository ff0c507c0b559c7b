"""Text from other machines steers no terminal, log or reader."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from common.printable import PrintableFormatter, printable, short_name, short_reason


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("north", "north"),
        ("Universitätsklinikum \u00a0 東京", "Universitätsklinikum \u00a0 東京"),
        ("\x1b[2J", "?[2J"),
        ("\x9b2J", "?2J"),
        ("a\u202eb\u2066c\u200fd", "a?b?c?d"),
        ("no\u200brth\u00ad", "no?rth?"),
        ("half \ud800", "half ?"),
        ("two\r\nlines\tand\u2028more", "two  lines and more"),
    ],
)
def test_what_a_terminal_would_obey_is_replaced(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_names_and_reasons_are_short() -> None:
    assert short_name("x" * 10_000) == "x" * 200
    assert short_reason("disk full\nfaked log line") == "disk full"
    assert short_reason("\x1b[2Jgone \u202etxt") == "?[2Jgone ?txt"
    assert short_reason("") == short_reason(None) == "no reason given"
    assert len(short_reason("x" * 10_000)) == 400


def test_no_argument_forges_an_entry_of_a_log() -> None:
    out = io.StringIO()
    log = logging.Logger("test")
    handler = logging.StreamHandler(out)
    handler.setFormatter(PrintableFormatter())
    log.addHandler(handler)
    log.warning("%s does not take part", "north\n2026-01-01 INFO all is well\x1b[2J")
    try:
        raise ValueError("text\n2026-01-01 INFO all is well \x1b[2J")
    except ValueError:
        log.error("failed", exc_info=sys.exc_info())
    lines = out.getvalue().splitlines()
    assert "WARNING north 2026-01-01 INFO all is well?[2J does not take part" in lines[0]
    assert "ERROR failed" in lines[1]
    assert all(line.startswith("    ") for line in lines[2:])
    assert "\x1b" not in out.getvalue()
