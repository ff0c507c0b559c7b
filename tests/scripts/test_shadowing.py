"""What lies in the current folder is never imported in the place of fedaccord's own packages."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from scripts.shadowing import PACKAGES, shadowed

ROOT = Path(__file__).parents[2]


def test_all_packages_of_the_distribution_are_looked_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    included = {
        name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]
    }
    # Several distributions share this namespace.
    assert set(PACKAGES) == included - {"hydra_plugins"}
    assert shadowed() is None


@pytest.mark.parametrize("name", ["common", "server", "results"])
@pytest.mark.parametrize("kind", ["module", "package"])
def test_a_module_that_comes_before_ours_is_one_line(tmp_path: Path, name: str, kind: str) -> None:
    planted = tmp_path / (f"{name}.py" if kind == "module" else f"{name}/__init__.py")
    planted.parent.mkdir(exist_ok=True)
    planted.write_text("open('imported', 'w')\nraise SystemExit(9)\n")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH"}
    # `python -m` puts the current folder before everything else.
    done = subprocess.run(
        [sys.executable, "-m", "scripts.cli", "simulate"],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"fedaccord: {tmp_path}")
    assert done.stderr.count("\n") == 1
    assert f"package {name}" in done.stderr
    assert not (tmp_path / "imported").exists()
