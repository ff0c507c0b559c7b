"""A browser for the reports of sweeps."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser import Page, browser, chromium


@pytest.fixture(scope="session")
def page() -> Iterator[Page]:
    program = chromium()
    if program is None:
        pytest.skip("no Chromium on this machine")
    with browser(program) as found:
        yield found
