"""What is quoted, Hydra reads back unchanged."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from scripts.quoting import quoted


@given(st.text(st.sampled_from("ab1 \\'\"[],:={}()/ü"), min_size=1))
def test_hydra_reads_the_very_text(text: str) -> None:
    override = OverridesParser.create().parse_override(f"key={quoted(text)}")
    assert str(override.value()) == text


@pytest.mark.parametrize("text", ["a\\b", "it's", "\\", "\\'", "true", "1"])
def test_such_as(text: str) -> None:
    assert OverridesParser.create().parse_override(f"key={quoted(text)}").value() == text
