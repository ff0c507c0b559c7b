"""Skips as failures: with FEDACCORD_STRICT_SKIPS=1 only the reasons in allowed_skips.txt may skip.

CI sets the variable. A test that needs an extra skips where that extra is missing; in CI, where
everything is installed, such a skip means that the test no longer runs anywhere.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest

VARIABLE = "FEDACCORD_STRICT_SKIPS"
ALLOWED = Path(__file__).with_name("allowed_skips.txt")


def allowed_reasons(text: str) -> tuple[str, ...]:
    """The lines of allowed_skips.txt without comments and blank lines."""
    lines = (line.strip() for line in text.splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


def forbidden(reason: str, allowed: tuple[str, ...]) -> bool:
    """Whether a test may not be skipped for `reason`, which pytest begins with "Skipped: "."""
    return not reason.removeprefix("Skipped: ").startswith(allowed)


def _judge(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a report of a skip that is not allowed into one of a failure."""
    if os.environ.get(VARIABLE) != "1" or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if forbidden(reason, allowed_reasons(ALLOWED.read_text())):
        report.outcome = "failed"
        report.longrepr = (
            f"{reason}; in CI this is a failure: install it or list it in {ALLOWED.name}"
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _judge(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _judge(report)
    return report
