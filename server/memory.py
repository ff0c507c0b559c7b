"""Peak memory of this process and everything it started."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import psutil

# Summing up the pages of large processes takes the kernel tens of milliseconds, so the sampler
# sleeps at least this many times as long as its last sample took.
IDLE_FACTOR = 50


class PeakMemory:
    """Samples the proportional set size of the process tree while it is entered.

    Shared pages are counted once.  `peak_mb` is the largest sample so far, in MB (10^6 bytes).
    """

    def __init__(self, interval_seconds: float = 2.0) -> None:
        self.peak_mb = 0.0
        self._interval = interval_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.peak_mb = max(self.peak_mb, tree_mb())

    def _watch(self) -> None:
        while True:
            began = time.monotonic()
            self.peak_mb = max(self.peak_mb, tree_mb())
            took = time.monotonic() - began
            if self._stop.wait(max(self._interval, IDLE_FACTOR * took)):
                return


def tree_mb() -> float:
    """Proportional set size of this process and its descendants, in MB (10^6 bytes)."""
    own = psutil.Process()
    total = 0
    for process in [own, *own.children(recursive=True)]:
        try:
            total += _proportional(process)
        except (psutil.Error, OSError):
            continue
    return total / 1e6


def _proportional(process: psutil.Process) -> int:
    """Memory of one process in bytes; the kernel's own sum, which is cheap, where it has one."""
    rollup = Path(f"/proc/{process.pid}/smaps_rollup")
    if not rollup.exists():
        return int(process.memory_info().rss)
    for line in rollup.read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0
