"""`results.json`: a run directory that holds it is finished."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common.files import write_atomic
from results.schema import results_text
from server.callbacks.base import Callback


class WriteResults(Callback):
    """Writes the results, after everything that they stand for."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def finished(self, results: dict[str, Any]) -> None:
        """Write the results."""
        write_atomic(self.path, results_text(results))
