"""Hold a run directory against its audit log."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from common.config import Config, config_hash
from common.config_file import read_config
from common.errors import UserError
from common.evaluation import Evaluation
from common.files import sha256_text
from common.messages import Report
from reporting.run import NAME as REPORT
from reporting.run import run_report
from reporting.source import read_run
from results.audit import (
    NAME,
    Entry,
    checkpoint_of,
    decision_lines,
    file_hash,
    file_hashes,
    logged_checkpoint,
    parse,
    rounds_of,
    settings_hash,
)
from results.history import Cost, History, rounds_csv
from results.schema import results, results_text
from strategies.build import client_level_spent


@dataclass(frozen=True)
class Verdict:
    """What was found: `problems` (none if whole), `notes`, and the chain's end to keep."""

    problems: list[str]
    notes: list[str]
    entries: int
    last_hash: str | None


def verify(directory: Path) -> Verdict:
    """Check everything in `directory` that the audit log covers.

    The chain; config.yaml, decisions.jsonl and rounds.csv; every checkpoint that is kept; the
    model; and that results.json is, to the byte, what the last checkpoint's history and the logged
    measurements give.  An unfinished run is checked as far as it went.

    Raises UserError when there is no log.
    """
    path = directory / NAME
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: there is no audit log to verify") from error
    unfinished = not (directory / "results.json").exists()
    notes: list[str] = []
    if unfinished and not content.endswith(b"\n"):
        notes.append("the last line is cut off, as a crash leaves it; it is made up for on resume")
        content = content[: content.rfind(b"\n") + 1]
    try:
        entries = parse(content)
    except ValueError as error:
        return Verdict([f"{NAME}: {error}"], notes, 0, None)
    if not entries:
        return Verdict([f"{NAME}: is empty"], notes, 0, None)
    log = _Log(directory, entries, unfinished)
    problems = [problem for check in CHECKS for problem in _safely(check, log)]
    if unfinished:
        notes.append(
            f"the run is not finished: {log.newest} rounds so far"
            if log.end is None
            else "results.json is missing, though the log ends with the results: a crash may leave "
            "that, and run.resume writes it; the model was not checked"
        )
    notes += _code_notes(log)
    notes += _report_notes(directory)
    return Verdict(problems, notes, len(entries), entries[-1].hash)


class _Log:
    """The log's entries by what they stand for."""

    def __init__(self, directory: Path, entries: Sequence[Entry], unfinished: bool) -> None:
        self.directory = directory
        self.entries = entries
        self.unfinished = unfinished
        self.starts = [e.body for e in entries if e.kind == "started"]
        self.rounds = rounds_of(entries)
        self.newest = max(self.rounds, default=0)
        self.end = entries[-1].body if entries[-1].kind == "finished" else None

    @property
    def config(self) -> Config:
        """What config.yaml holds."""
        return read_config(self.directory / "config.yaml")


def _safely(check: Any, log: _Log) -> list[str]:
    """The problems that `check` finds; what it cannot even read is one too."""
    try:
        return list(check(log))
    except OSError as error:
        return [f"{Path(str(error.filename)).name}: cannot be read ({error.strerror})"]
    except UserError as error:
        return [str(error)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = check.__name__.removeprefix("_")
        return [f"{what}: does not have the form that this version writes ({error})"]


def _order(log: _Log) -> Iterator[str]:
    if log.entries[0].kind != "started":
        yield f"{NAME}: does not begin with the start of a run"
    missing = sorted(set(range(1, log.newest + 1)) - set(log.rounds))
    if missing:
        yield f"{NAME}: round {missing[0]} is not in the log"
    if len({s["run"] for s in log.starts}) > 1 or len({s["config"] for s in log.starts}) > 1:
        yield f"{NAME}: holds more than one run or configuration"
    if not log.unfinished and log.end is None:
        yield f"{NAME}: does not end with the results, but there is a results.json"


def _config(log: _Log) -> Iterator[str]:
    config, start = log.config, log.starts[-1]
    if config_hash(config) != start["config"]:
        yield "config.yaml: is not the configuration of the log"
    # Logs of earlier versions have the first hash alone.
    elif settings_hash(config) != start.get("settings", settings_hash(config)):
        yield (
            "config.yaml: is not the configuration of the log in a setting that changes no result "
            "(tracking, workers, memory or checkpoints kept)"
        )


def _checkpoints(log: _Log) -> Iterator[str]:
    newest = checkpoint_of(log.directory, log.newest)
    if not newest.is_dir():
        yield f"checkpoints/{newest.name}: the newest checkpoint of the log is gone"
    for path in sorted((log.directory / "checkpoints").glob("round-*")):
        number = int(path.name.removeprefix("round-"))
        expected = logged_checkpoint(log.entries, number)
        if expected is None:
            # A crash may fall between a checkpoint and its line; resuming adds the line.
            if not (log.unfinished and number == log.newest + 1):
                yield f"checkpoints/{path.name}: is not in the log"
            continue
        yield from _compare(f"checkpoints/{path.name}/", file_hashes(path), expected)


def _compare(where: str, found: Mapping[str, str], expected: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(set(found) | set(expected)):
        if name not in found:
            yield f"{where}{name}: is gone"
        elif name not in expected:
            yield f"{where}{name}: is not in the log"
        elif found[name] != expected[name]:
            yield f"{where}{name}: was changed"


def _decisions(log: _Log) -> Iterator[str]:
    content = (log.directory / "decisions.jsonl").read_bytes() if log.rounds else b""
    if log.unfinished:
        content = content[: content.rfind(b"\n") + 1]
    lines = decision_lines(content)
    for number, body in sorted(log.rounds.items()):
        if sha256_text(*lines.pop(number, [])) != body["decisions"]:
            yield f"decisions.jsonl: the lines of round {number} are not those of the log"
    if log.unfinished:
        lines.pop(log.newest + 1, None)
    for number in sorted(lines):
        yield f"decisions.jsonl: round {number} is not in the log"


def _files(log: _Log) -> Iterator[str]:
    if log.end is None or log.unfinished:
        return
    files = log.end["files"]
    found = {
        name: file_hash(log.directory / name) for name in files if (log.directory / name).is_file()
    }
    yield from _compare("", found, files)
    yield from _compare("model/", file_hashes(log.directory / "model"), log.end["model"])


def _results(log: _Log) -> Iterator[str]:
    """results.json, computed once more."""
    if log.end is None or log.unfinished:
        return
    saved = checkpoint_of(log.directory, log.newest) / "run.json"
    history = History.from_json(json.loads(saved.read_text())["history"])
    history.cost = Cost(**log.end["cost"])
    measured = log.end["measured"]
    reports = [_report(body) for body in measured["reports"]]
    if history.rounds:
        history.rounds[-1].measure_partners(reports, log.config.about.loss_bound)
    expected = results(
        history,
        reports,
        _evaluation(measured["test"]),
        log.config.run.seed,
        log.starts[-1]["config"],
        client_level_spent(log.config.strategy, len(history.rounds)),
        log.config.about,
        log.config.data,
    )
    stored = json.loads((log.directory / "results.json").read_text())
    if differs := _difference(stored, json.loads(results_text(expected)), "results.json"):
        yield f"{differs}: does not follow from the log and the last checkpoint"
    if rounds_csv(history) != (log.directory / "rounds.csv").read_text():
        yield "rounds.csv: does not follow from the log and the last checkpoint"
    yield from _tallies(log, history)


def _tallies(log: _Log, history: History) -> Iterator[str]:
    """The history's counts against the decisions."""
    weights: dict[str, float] = {}
    refused: dict[str, int] = {}
    lines = decision_lines((log.directory / "decisions.jsonl").read_bytes())
    for record in history.rounds:
        decisions = [json.loads(line) for line in lines.get(record.round, [])]
        outcomes = [d["outcome"] for d in decisions]
        counted = (outcomes.count("refused"), outcomes.count("missing"))
        if counted != (record.refused, record.missing):
            yield f"decisions.jsonl: round {record.round} counts other refusals than the history"
        for d in decisions:
            if d["outcome"] in ("refused", "missing"):
                refused[d["partner"]] = refused.get(d["partner"], 0) + 1
            else:
                weights[d["partner"]] = weights.get(d["partner"], 0.0) + d["weight_given"]
    same = weights.keys() == history.weight_sums.keys() and np.allclose(
        [weights[k] for k in sorted(weights)], [history.weight_sums[k] for k in sorted(weights)]
    )
    if refused != history.refused_rounds or not same:
        yield "decisions.jsonl: weights or refusals do not add up to those of the history"


def _difference(stored: Any, expected: Any, where: str) -> str | None:
    """The first place where `stored` holds something else than `expected`.

    The bytes are compared by hash; here a difference of rounding, as another build of numpy may
    make, is none, and neither is a figure that only a later version writes.
    """
    if isinstance(stored, dict) and isinstance(expected, dict):
        pairs = [(stored[key], expected.get(key), f"{where}: {key}") for key in stored]
    elif isinstance(stored, list) and isinstance(expected, list) and len(stored) == len(expected):
        pairs = [(a, b, where) for a, b in zip(stored, expected, strict=True)]
    elif isinstance(stored, float) and isinstance(expected, float):
        return None if np.isclose(stored, expected, 1e-9, 1e-12, equal_nan=True) else where
    else:
        return None if stored == expected else where
    return next((found for pair in pairs if (found := _difference(*pair))), None)


def _report(body: Mapping[str, Any]) -> Report:
    # Logs of earlier versions have a field more.
    known = {f.name for f in fields(Report)} - {"partner"}
    numbers = {name: _read(value) for name, value in body.items() if name in known}
    return Report(partner=body["partner"], **numbers)


def _evaluation(test: Mapping[str, Any] | None) -> Evaluation | None:
    if test is None:
        return None
    body = _read(test)
    return Evaluation(
        np.array(body["confusion"]),
        {name: np.array(counts) for name, counts in body["groups"].items()},
        body["loss"],
        body["rows"],
        None if body.get("sums") is None else np.array(body["sums"]),
        dict(body.get("extra", {})),
    )


def _read(value: Any) -> Any:
    """Numbers that JSON has not, from text."""
    if isinstance(value, Mapping):
        return {key: _read(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_read(item) for item in value]
    return float(value) if isinstance(value, str) else value


def _code_notes(log: _Log) -> Iterator[str]:
    if len({s["code"] for s in log.starts}) > 1:
        yield "the run was continued by another version of the code than it was begun with"
    if len(log.starts) > 1:
        places = ", ".join(str(s["after_round"]) for s in log.starts[1:])
        yield f"the run was interrupted and continued after round {places}"


def _report_notes(directory: Path) -> Iterator[str]:
    """report.html repeats the other files, so that it may be written anew at any time."""
    path = directory / REPORT
    with suppress(UserError, KeyError, TypeError, ValueError, AttributeError, OSError):
        if path.exists() and path.read_text() != run_report(read_run(directory)):
            yield (
                f"{REPORT}: is not what this version makes of the run; `fedaccord report` "
                "writes it anew"
            )


CHECKS = (_order, _config, _checkpoints, _decisions, _files, _results)
