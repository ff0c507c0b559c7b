"""The memory of a process tree, against psutil's own slower count."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

from server.memory import PeakMemory, tree_mb


def test_counts_this_process_and_its_children() -> None:
    alone = tree_mb()
    # Other tests of the session may have processes running.
    tree = [psutil.Process(), *psutil.Process().children(recursive=True)]
    infos = [process.memory_full_info() for process in tree]
    assert alone == pytest.approx(
        sum(getattr(info, "pss", info.rss) for info in infos) / 1e6, rel=0.2
    )
    code = "x = bytearray(150_000_000); print('ready', flush=True); input()"
    with PeakMemory(interval_seconds=0.05) as memory:
        child = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        assert tree_mb() > alone + 140
        child.communicate("\n", timeout=20)
    assert memory.peak_mb > 0
