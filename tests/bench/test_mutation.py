"""Mutation testing, tried on a project of one function."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from bench.mutants import mutants, mutated

SOURCE = '''"""Text."""
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import math
LIMIT = 2


def small(x: int = 1) -> bool:
    """Text."""
    return 0 < x <= LIMIT


def name(x: int) -> str:
    return f"{x + 1}" if small(x) else "large"
'''


def test_every_fault_is_planted_where_it_is_named() -> None:
    listed = mutants(SOURCE)
    assert [mutant.name for mutant in listed] == [
        "(module): 2 -> 3",
        "(module): 1 -> 2",
        "small: return 0 < x <= LIMIT -> return not 0 < x <= LIMIT",
        "small: 0 < x <= LIMIT -> 0 <= x <= LIMIT",
        "small: 0 < x <= LIMIT -> 0 >= x <= LIMIT",
        "small: 0 < x <= LIMIT -> 0 < x < LIMIT",
        "small: 0 < x <= LIMIT -> 0 < x > LIMIT",
        "small: 0 < x <= LIMIT -> 1 < x <= LIMIT",
        "name: return f'{x + 1}' if small(x) else 'large' -> return None",
        "name: small(x) -> not small(x)",
    ]
    for mutant in listed:
        text = ast.unparse(mutated(SOURCE, mutant.number))
        assert text != ast.unparse(ast.parse(SOURCE))
        assert mutant.after.removeprefix("return ") in text


def test_survivors_are_those_that_no_test_sees(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    for folder in ("bench", "pkg", "tests"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").touch()
    for file in ("mutants.py", "mutation.py"):
        shutil.copy(root / "bench" / file, tmp_path / "bench")
    (tmp_path / "pkg" / "code.py").write_text(
        "def small(x: int) -> bool:\n    return x < 9 and x > 0\n\n\n"
        "def spin(n: int) -> None:\n    while n > 0:\n        n -= 1\n"
    )
    (tmp_path / "tests" / "test_code.py").write_text(
        "from pkg.code import small, spin\n"
        "def test_small(): assert small(8) and not small(9) and not small(0)\n"
        "def test_spin(): spin(3)\n"
    )
    (tmp_path / "go.py").write_text(
        "import sys\nimport bench.mutation as m\n"
        "m.TESTS, m.LEAST_PATIENCE = (('pkg/', ('tests/test_code.py',)),), 3.0\n"
        "sys.exit(m.main())\n"
    )
    command = [sys.executable, "go.py", "pkg/code.py", "--out", "out.jsonl"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=300)
    outcomes = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    by_name = {outcome["name"]: outcome for outcome in outcomes}
    survivors = [name for name, outcome in by_name.items() if outcome["status"] == "survived"]
    # spin has nothing to assert, so that only a loop without end is seen.
    assert survivors == [
        "small: x > 0 -> x > 1",
        "spin: n > 0 -> n >= 0",
        "spin: n > 0 -> n <= 0",
        "spin: n > 0 -> n > 1",
        "spin: 1 -> 2",
    ]
    assert by_name["spin: n -= 1 -> n += 1"]["by"] == "timeout"
    assert by_name["small: x < 9 -> x <= 9"]["by"] == "tests/test_code.py::test_small"
    # A second run has nothing left to try.
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=60)
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == len(outcomes)
