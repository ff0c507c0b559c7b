"""`decisions.jsonl`: one line per partner and round."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from common.files import append_lines, write_atomic
from server.callbacks.base import Callback, RoundResult
from server.checkpoint import Checkpoint


class WriteDecisions(Callback):
    """Appends each round's decisions to a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def training_starts(self, current: Checkpoint, partners: Sequence[str]) -> None:
        """Remove the lines of rounds that no checkpoint has, and of none: they are repeated."""
        if self.path.exists():
            # As bytes: a reason may hold characters at which text would be split as well.
            lines = self.path.read_bytes().splitlines(keepends=True)
            whole = [line for line in lines if line.endswith(b"\n")]
            kept = [line for line in whole if json.loads(line)["round"] <= current.round]
            write_atomic(self.path, b"".join(kept))

    def round_completed(self, result: RoundResult) -> None:
        """Append the round's decisions."""
        append_lines(self.path, *(decision.to_json() for decision in result.decisions))
