"""What every system of `bench.federation` is given, and what it writes down as it goes.

A job is a folder with ``job.json``.  Whoever runs it appends a line to ``progress.jsonl`` after
every round: the accuracy on the test rows, the moment, and the seconds of training of all partners
so far.  Partners append their own times to ``train.jsonl``, one line a message.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Rows:
    """Texts and their labels, 0 or 1."""

    texts: list[str]
    labels: list[int]


@dataclass(frozen=True)
class Job:
    """A federated job under example-level differential privacy.

    Every partner takes one step a round on a batch into which each of its rows enters with the
    same probability, `batch` of them in expectation.  `noise[i]` is the noise multiplier with which
    partner i spends `epsilon` over `rounds` such steps.
    """

    base: str
    variant: str
    partners: list[Rows]
    test: Rows
    noise: list[float]
    rounds: int
    batch: int
    physical_batch: int
    length: int
    epsilon: float
    delta: float
    seed: int

    def write(self, folder: Path) -> None:
        """Leave the job in `folder`."""
        (folder / "job.json").write_text(json.dumps(asdict(self)))


def read(folder: Path) -> Job:
    """The job in `folder`."""
    fields: dict[str, Any] = json.loads((folder / "job.json").read_text())
    fields["partners"] = [Rows(**rows) for rows in fields["partners"]]
    fields["test"] = Rows(**fields["test"])
    return Job(**fields)


def trained(folder: Path, seconds: float, sent: int) -> None:
    """A partner has taken its step in `seconds` and sends `sent` bytes."""
    _append(folder / "train.jsonl", {"seconds": seconds, "bytes": sent})


def evaluated(folder: Path, number: int, accuracy: float) -> None:
    """Round `number` has ended with a model of this accuracy."""
    _append(folder / "progress.jsonl", {"round": number, "accuracy": accuracy, "at": time.time()})


def lines(path: Path) -> list[dict[str, float]]:
    """What was appended to a file so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _append(path: Path, entry: dict[str, float]) -> None:
    # One write of a short line: partners of several processes append to the same file.
    text = json.dumps(entry) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
