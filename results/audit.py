"""The audit log: `audit.jsonl` in the run directory, one line per event, each chained to the last.

A line is canonical JSON: `{"body", "hash", "kind", "n", "previous"}`, where `hash` is SHA-256 over
the previous hash and the rest of the line.  The log is only ever appended to:

- `started`: who takes part, the configuration, the code, and the checkpoint that the run begins
  from;
- `round`: who was asked, who was refused and why, the digest of the round's lines in
  decisions.jsonl, and the hashes of the checkpoint's files.  It is written after the checkpoint and
  from the files on disk, so that a line which a crash prevented is added when the run continues;
- `finished`: the counts that partners and the server measured with the delivered model (from which
  results.json is computed) and the hashes of every file that the run leaves.  It is written before
  results.json: where that file exists, so does this line.

The chain reveals every change by somebody who did not recompute all later lines.  To reveal that as
well, keep the last hash where the writer of the log cannot change it (`docs/audit.md`).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from common.config import Config, config_hash, to_mapping
from common.errors import UserError
from common.evaluation import Evaluation
from common.files import canonical_json, fsync_directory, sha256_text, write_atomic
from common.messages import Report
from results.history import Cost

AUDIT_VERSION = 1
NAME = "audit.jsonl"
FIRST = "0" * 64
# Every package of the project: a run may import any of them.
PACKAGES = (
    *("auditing", "client", "common", "conf", "deployment", "fedaccord"),
    *("hydra_plugins/fedaccord_sweeper", "inspection", "reporting", "results", "scripts"),
    *("server", "simulation", "strategies", "sweeps"),
)
# Where a run's files are: a copied or moved run has others.
PLACES = ("run.dir", "run.resume", "run.cache_dir")
LIBRARIES = ("fedaccord", "flwr", "opacus", "peft", "torch", "transformers")


@dataclass(frozen=True)
class Entry:
    """One line of the log; `n` counts from 0."""

    n: int
    kind: str
    body: Mapping[str, Any]
    previous: str
    hash: str

    @classmethod
    def following(cls, before: Entry | None, kind: str, body: Mapping[str, Any]) -> Entry:
        """The entry that comes after `before`."""
        n, previous = (before.n + 1, before.hash) if before else (0, FIRST)
        return cls(n, kind, body, previous, _digest(n, kind, body, previous))

    def line(self) -> bytes:
        """The entry's line in the file, with its line end."""
        return canonical_json(asdict(self)).encode() + b"\n"


def _digest(n: int, kind: str, body: Mapping[str, Any], previous: str) -> str:
    return sha256_text(previous, canonical_json({"body": body, "kind": kind, "n": n}))


def parse(content: bytes) -> list[Entry]:
    """The entries of a log.

    Raises ValueError naming the first line (from 1) that was changed.
    """
    entries: list[Entry] = []
    lines = content.split(b"\n")
    if lines.pop():
        raise ValueError(f"line {len(lines) + 1}: is cut off")
    for number, line in enumerate(lines, 1):
        before = entries[-1] if entries else None
        try:
            found = json.loads(line)
            entry = Entry.following(before, found["kind"], found["body"])
            whole = entry.line() == line + b"\n"
        except (ValueError, KeyError, TypeError, RecursionError):
            whole = False
        if not whole:
            raise ValueError(f"line {number}: was changed, or a line before it is missing")
        entries.append(entry)
    return entries


def rounds_of(entries: Sequence[Entry]) -> dict[int, Mapping[str, Any]]:
    """The body of each round by its number; of a round that was repeated, the last one."""
    rounds: dict[int, Mapping[str, Any]] = {}
    for entry in entries:
        if entry.kind == "started":
            rounds = {n: b for n, b in rounds.items() if n <= entry.body["after_round"]}
        elif entry.kind == "round":
            rounds[entry.body["round"]] = entry.body
    return rounds


def logged_checkpoint(entries: Sequence[Entry], number: int) -> Mapping[str, str] | None:
    """The hashes of the checkpoint after round `number`; None where the log has none."""
    starts = [e.body for e in entries if e.kind == "started" and e.body["after_round"] == number]
    body = rounds_of(entries).get(number) or (starts[-1] if starts else None)
    return dict(body["checkpoint"]) if body else None


def file_hashes(directory: Path) -> dict[str, str]:
    """SHA-256 of every file under `directory`, by relative path."""
    return {
        path.relative_to(directory).as_posix(): file_hash(path)
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        digest = sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def decision_lines(content: bytes) -> dict[int, list[bytes]]:
    """The lines of decisions.jsonl by round.

    Raises ValueError naming the first line that is no decision.
    """
    found: dict[int, list[bytes]] = {}
    for number, line in enumerate(content.splitlines(keepends=True), 1):
        try:
            found.setdefault(int(json.loads(line)["round"]), []).append(line)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"decisions.jsonl: line {number} is not a decision") from error
    return found


def round_body(directory: Path, number: int, lines: Sequence[bytes]) -> dict[str, Any]:
    """The log's body for round `number`, from the round's decisions and its checkpoint."""
    decisions = [json.loads(line) for line in lines]
    hashes = file_hashes(checkpoint_of(directory, number))
    return {
        "round": number,
        "participants": [d["partner"] for d in decisions],
        "refusals": {
            d["partner"]: d["reason"] for d in decisions if d["outcome"] in ("refused", "missing")
        },
        "decisions": sha256_text(*lines),
        "parameters": hashes["parameters.safetensors"],
        "checkpoint": hashes,
    }


def checkpoint_of(directory: Path, number: int) -> Path:
    """The folder of the checkpoint after round `number`."""
    return directory / "checkpoints" / f"round-{number:06d}"


def settings_hash(config: Config) -> str:
    """SHA-256 of every setting except `PLACES`.

    `config_hash` also leaves out settings that change no result, so that a run can be continued
    with other workers or elsewhere.
    """
    tree = to_mapping(config)
    for key in PLACES:
        section, _, name = key.partition(".")
        del tree[section][name]
    return sha256_text(canonical_json(tree))


def code_digest() -> str:
    """SHA-256 over the installed sources: two runs with the same one ran the same code."""
    root = Path(__file__).parent.parent
    files = [p for name in PACKAGES for p in (root / name).rglob("*") if _is_source(p)]
    names = sorted((path.relative_to(root).as_posix(), path) for path in files)
    return sha256_text(*(part for name, path in names for part in (name, path.read_bytes())))


def _is_source(path: Path) -> bool:
    return path.suffix in (".py", ".yaml") and path.is_file()


def measured_body(reports: Sequence[Report], test: Evaluation | None) -> dict[str, Any]:
    """The final measurements as JSON values; NaN and infinity, which JSON lacks, are text."""
    held_out = test and {
        "confusion": test.confusion.tolist(),
        "groups": {name: counts.tolist() for name, counts in test.groups.items()},
        "loss": test.loss,
        "rows": test.rows,
        "sums": None if test.sums is None else test.sums.tolist(),
        "extra": test.extra,
    }
    body: dict[str, Any] = _written({"reports": [asdict(r) for r in reports], "test": held_out})
    return body


def _written(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _written(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_written(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


class Audit:
    """Appends to the audit log of one run."""

    def __init__(self, directory: Path, config: Config) -> None:
        self.directory = directory
        self.config = config
        self.path = directory / NAME
        self.last: Entry | None = None
        # Where in decisions.jsonl the decisions begin that this process has not logged yet.
        self.offset = 0

    def started(self, run_id: str, current: int, partners: Sequence[str]) -> None:
        """Log that a run begins, or continues after round `current`.

        A line that a crash cut off is removed.  A round whose checkpoint is on disk without a line
        in the log gets its line.

        Raises UserError when the log was changed or the checkpoint is not the one in the log.
        """
        entries = self._recovered()
        self.last = entries[-1] if entries else None
        hashes = file_hashes(checkpoint_of(self.directory, current))
        expected = logged_checkpoint(entries, current)
        if expected is not None and expected != hashes:
            raise UserError(
                f"{checkpoint_of(self.directory, current)}: is not what {NAME} says was saved; "
                "remove this folder to continue from the one before"
            )
        if expected is None and logged_checkpoint(entries, current - 1) is not None:
            self.round_ended(current)
        self._append(
            "started",
            {
                "version": AUDIT_VERSION,
                "run": run_id,
                "config": config_hash(self.config),
                "settings": settings_hash(self.config),
                "code": code_digest(),
                "libraries": {name: version(name) for name in LIBRARIES},
                "after_round": current,
                "partners": list(partners),
                "checkpoint": hashes,
            },
        )

    def round_ended(self, number: int) -> None:
        """Log round `number`, whose decisions and checkpoint are on disk."""
        with (self.directory / "decisions.jsonl").open("rb") as file:
            file.seek(self.offset)
            content = file.read()
        self.offset += len(content)
        lines = decision_lines(content).get(number, [])
        self._append("round", round_body(self.directory, number, lines))

    def finished(
        self, results: str, reports: Sequence[Report], test: Evaluation | None, cost: Cost
    ) -> None:
        """Log the end of the run, with everything on disk except results.json.

        Args:
            results: what results.json will contain.
            reports: the partners' measurements of the delivered model.
            test: the server's own; None where it has no test rows.
            cost: what the run took.
        """
        files = {
            name: file_hash(self.directory / name)
            for name in ("decisions.jsonl", "rounds.csv")
            if (self.directory / name).exists()
        }
        self._append(
            "finished",
            {
                "measured": measured_body(reports, test),
                "cost": asdict(cost),
                "model": file_hashes(self.directory / "model"),
                "files": {**files, "results.json": sha256(results.encode()).hexdigest()},
            },
        )

    def _recovered(self) -> list[Entry]:
        if not self.path.exists():
            return []
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        try:
            entries = parse(whole)
        except ValueError as error:
            raise UserError(
                f"{self.path}: {error}; a run is not continued on a log that was changed"
            ) from error
        if whole != content:
            write_atomic(self.path, whole)
        return entries

    def _append(self, kind: str, body: Mapping[str, Any]) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        entry = Entry.following(self.last, kind, {"time": now, **body})
        new = not self.path.exists()
        with self.path.open("ab") as file:
            file.write(entry.line())
            file.flush()
            os.fsync(file.fileno())
        if new:
            fsync_directory(self.directory)
        self.last = entry
