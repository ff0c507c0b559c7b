"""The normal form in which names and texts are compared."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from common.data.normal import normal_form, one_letter_apart, visible, whole_number


def test_what_shows_nothing_is_what_unicode_says() -> None:
    wrong = [
        hex(point)
        for point in range(sys.maxunicode + 1)
        if (category := unicodedata.category(chr(point))) != "Cn"
        and (visible(chr(point)) == "") != (category in ("Cc", "Cf") and not chr(point).isspace())
    ]
    assert wrong == []


def test_normal_forms() -> None:
    assert normal_form("  Gr\u00fc\u00dfe\u00a0an\tAlle\r\n") == "Grüße an Alle"
    assert normal_form("Gru\u0308\u00dfe", fold_case=True) == "grüsse"
    assert normal_form("\ufeffa\u200bb\u00ad") == "ab"


@pytest.mark.parametrize(
    ("text", "plain"),
    [("1", "1"), ("01", "1"), ("-0", "0"), ("+7.00", "7"), ("1.5", None), ("a", None), ("", None)],
)
def test_whole_numbers(text: str, plain: str | None) -> None:
    assert whole_number(text) == plain


@pytest.mark.parametrize(
    ("first", "second", "near"),
    [
        ("positive", "positiv", True),
        ("positive", "pozitive", True),
        ("xpositive", "positive", True),
        ("positive", "positive", False),
        ("grade 1", "grade 2", False),
        ("positive", "negative", False),
        ("bad", "badly", False),
    ],
)
def test_names_one_letter_apart(first: str, second: str, near: bool) -> None:
    assert one_letter_apart(first, second) == near
    assert one_letter_apart(second, first) == near
