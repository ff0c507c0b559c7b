"""In CI a test that is skipped for a reason that nobody listed fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.skips import ALLOWED, VARIABLE, allowed_reasons, forbidden

ROOT = Path(__file__).parents[1]
SAMPLE = """
import pytest


def test_needs_an_extra():
    pytest.skip("the extra is not installed")


@pytest.mark.skipif(True, reason="needs a CUDA device")
def test_needs_a_gpu(): ...


@pytest.mark.xfail(reason="known")
def test_known():
    assert False


def test_fine(): ...
"""


def outcome(folder: Path, strict: str) -> subprocess.CompletedProcess[str]:
    """Runs pytest on the samples in `folder`, with the hooks of these tests."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.skips", "-p", "no:cacheprovider", folder],
        capture_output=True,
        text=True,
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            VARIABLE: strict,
        },
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_sample.py").write_text(SAMPLE)
    (tmp_path / "test_module.py").write_text(
        "import pytest\npytest.importorskip('no_such_module_at_all')\n"
    )
    return tmp_path


def test_a_skip_that_is_not_listed_fails(folder: Path) -> None:
    (folder / "test_module.py").unlink()
    done = outcome(folder, "1")
    assert done.returncode == 1
    assert "1 failed, 1 passed, 1 skipped, 1 xfailed" in done.stdout
    assert "the extra is not installed; in CI this is a failure" in done.stdout


def test_a_module_that_is_skipped_while_it_is_collected_fails(folder: Path) -> None:
    done = outcome(folder, "1")
    assert done.returncode == 2
    assert "no_such_module_at_all" in done.stdout
    assert "in CI this is a failure" in done.stdout


def test_outside_ci_every_skip_is_fine(folder: Path) -> None:
    done = outcome(folder, "")
    assert done.returncode == 0, done.stdout
    assert "1 passed, 3 skipped, 1 xfailed" in done.stdout


def test_the_list_holds_beginnings_of_reasons() -> None:
    allowed = allowed_reasons("# a comment\n\nneeds a CUDA device\n")
    assert allowed == ("needs a CUDA device",)
    assert not forbidden("Skipped: needs a CUDA device (2 of them)", allowed)
    assert forbidden("Skipped: it no longer needs a CUDA device", allowed)
    assert "needs a CUDA device" in allowed_reasons(ALLOWED.read_text())
