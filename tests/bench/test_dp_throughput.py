"""The throughput bench at a size that says nothing but that it runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.dp_throughput import main

KEYS = {"mode", "trainable", "length", "examples_per_s", "peak_mb", "ratio_to_non_private"}


def test_rows_are_as_stated(tmp_path: Path, tiny_bert: Path) -> None:
    out = tmp_path / "throughput.json"
    small = ["--batch", "8", "--physical-batch", "4", "--repeats", "1", "--threads", "1"]
    chosen = ["--modes", "none,bookkeeping", "--trainable", "last_k", "--lengths", "16"]
    arguments = ["--json", str(out), "--base", str(tiny_bert), *small, *chosen]
    # A process of its own, because the bench forks the processes that it measures.
    subprocess.run([sys.executable, "-m", "bench.dp_throughput", *arguments], check=True)
    rows = json.loads(out.read_text())["rows"]
    assert [row["mode"] for row in rows] == ["none", "bookkeeping"]
    for row in rows:
        assert set(row) == KEYS
        assert row["examples_per_s"] > 0
        assert 50 < row["peak_mb"] < 5000
    assert rows[0]["ratio_to_non_private"] == 1.0


def test_an_unknown_mode_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(["--json", str(tmp_path / "t.json"), "--modes", "fast"])
    assert error.value.code == 2
    assert "unknown fast" in capsys.readouterr().err
