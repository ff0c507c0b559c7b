"""What a run takes at the server: time and memory, over all its resumptions."""

from __future__ import annotations

import time

from results.history import Cost
from server.memory import PeakMemory


class Meter:
    """Measures while it is entered; `began` is when the run's time began (`time.monotonic`)."""

    def __init__(self, began: float) -> None:
        self._began = began
        self._earlier = 0.0
        self._memory = PeakMemory()

    def __enter__(self) -> Meter:
        self._memory.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._memory.__exit__()

    def continue_from(self, cost: Cost) -> None:
        """Count on from what the run took before it was interrupted."""
        self._earlier = cost.wall_seconds

    def update(self, cost: Cost) -> None:
        """Write the time so far and the peak memory into `cost`."""
        cost.wall_seconds = self._earlier + time.monotonic() - self._began
        cost.peak_rss_mb = max(cost.peak_rss_mb, self._memory.peak_mb)
