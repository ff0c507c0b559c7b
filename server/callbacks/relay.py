"""A run's events as JSON lines, for a reader in another process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from results.history import RoundRecord
from server.callbacks.base import Callback

PROGRESS = "progress.jsonl"


class Relay(Callback):
    """Writes every event of a run to a file; begins a new file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_text("")

    def _write(self, event: str, *arguments: Any) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([event, *arguments]) + "\n")

    def started(self, partners: list[str], rounds: int, first_round: int) -> None:
        """All partners are ready."""
        self._write("started", partners, rounds, first_round)

    def preparing(self, done: int, total: int) -> None:
        """Partners prepare."""
        self._write("preparing", done, total)

    def replied(self, round_number: int, done: int, total: int) -> None:
        """One more partner has answered."""
        self._write("replied", round_number, done, total)

    def round_ended(self, record: RoundRecord) -> None:
        """A round's checkpoint is on disk."""
        self._write("round_ended", record.row())

    def finished(self, results: dict[str, Any]) -> None:
        """results.json is on disk; it is not repeated here."""
        self._write("finished")


class Reader:
    """Passes the events that a `Relay` has written on to a callback."""

    def __init__(self, path: Path, callback: Callback) -> None:
        self.path = path
        self.callback = callback
        self.offset = 0

    def read(self) -> None:
        """Pass on the new events; `finished` is left to the caller, who can read the results."""
        if not self.path.exists():
            return
        with self.path.open(encoding="utf-8") as file:
            file.seek(self.offset)
            while (line := file.readline()).endswith("\n"):
                self.offset = file.tell()
                event, *arguments = json.loads(line)
                if event == "round_ended":
                    arguments = [RoundRecord.from_row(arguments[0])]
                if event != "finished":
                    getattr(self.callback, event)(*arguments)
