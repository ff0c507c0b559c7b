"""The audit log: every changed byte is found, and a crash at any point is not taken for one."""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints

import pytest
import yaml

from common.config import Config
from common.data.schema import Block
from common.errors import UserError
from inspection.verify import verify
from results import audit
from scripts import cli
from tests.small_run import SmallRun, small_run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run(tmp_path_factory.mktemp("audit") / "run")


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def test_a_whole_run_has_no_problem(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verdict = verify(whole)
    assert (verdict.problems, verdict.notes) == ([], [])
    entries = audit.parse((whole / audit.NAME).read_bytes())
    assert [e.kind for e in entries] == ["started", "round", "round", "round", "finished"]
    assert entries[1].body["participants"] == ["a", "b", "c"]
    assert list(entries[1].body["refusals"]) == ["c"]
    assert cli.main(["verify", str(whole)]) == 0
    assert entries[-1].hash in capsys.readouterr().out


def test_every_changed_byte_of_the_log_is_found(run: Path) -> None:
    path = run / audit.NAME
    content = path.read_bytes()
    generator = random.Random(0)
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= generator.randrange(1, 256)
        path.write_bytes(changed)
        assert verify(run).problems, place
    for place in range(len(content)):
        with pytest.raises(ValueError, match="line"):
            audit.parse(content[:place] + content[place + 1 :])


def test_a_changed_byte_of_any_covered_file_is_found(run: Path) -> None:
    generator = random.Random(1)
    names = [
        "results.json",
        "decisions.jsonl",
        "rounds.csv",
        "model/weights",
        *(
            f"checkpoints/round-00000{n}/{name}"
            for n in (2, 3)
            for name in ("parameters.safetensors", "state.safetensors", "run.json")
        ),
    ]
    for name in names:
        path = run / name
        content = path.read_bytes()
        for place in generator.sample(range(len(content)), min(5, len(content))):
            changed = bytearray(content)
            changed[place] ^= 1 << generator.randrange(8)
            path.write_bytes(changed)
            problems = verify(run).problems
            assert any(name.rpartition("/")[2] in problem for problem in problems), name
        path.write_bytes(content)
    assert not verify(run).problems


def test_what_is_removed_added_or_exchanged_is_found(run: Path, tmp_path: Path) -> None:
    def found(words: str) -> None:
        problems = verify(run).problems
        assert any(words in problem for problem in problems), problems

    log = run / audit.NAME
    lines = log.read_bytes().splitlines(keepends=True)
    for kept, words in ((lines[:-1], "does not end"), (lines[:2] + lines[3:], "line 3")):
        log.write_bytes(b"".join(kept))
        found(words)
    log.write_bytes(b"".join(lines))
    (run / "checkpoints/round-000003/extra").write_text("")
    found("extra: is not in the log")
    shutil.rmtree(run / "checkpoints/round-000003")
    found("newest checkpoint")
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("epsilon: 8.0", "epsilon: 80.0"))
    found("config.yaml")


def test_every_setting_is_covered(run: Path) -> None:
    """All but where the run's files are, which a moved run has elsewhere."""
    path = run / "config.yaml"
    tree = yaml.safe_load(path.read_text())
    found = {}
    for key, kind in settings(Config):
        changed = copy.deepcopy(tree)
        *sections, name = key.split(".")
        holder = changed
        for section in sections:
            holder = holder[section]
        holder[name] = other(kind, holder[name])
        path.write_text(yaml.safe_dump(changed))
        found[key] = any("is not the configuration" in p for p in verify(run).problems)
    assert len(found) > 90
    # `version` has one value only, and another is refused when the file is read.
    free = {key for key, covered in found.items() if not covered} - {"version"}
    assert free == {"run.dir", "run.resume", "run.cache_dir"} == set(audit.PLACES)


def settings(kind: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of the schema that is no section, with its type."""
    for name, inner in get_type_hints(kind).items():
        if is_dataclass(inner):
            yield from settings(cast(type, inner), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", inner


def other(kind: Any, value: Any) -> Any:
    """Another value of the same type."""
    if kind is bool:
        return not value
    if type(None) in get_args(kind):
        kind = get_args(kind)[0]
        value = kind() if value is None else value
    made: dict[Any, Callable[[], Any]] = {
        int: lambda: value + 1,
        float: lambda: value + 1.0,
        str: lambda: f"{value}x",
        list[str]: lambda: [*value, "x"],
        list[float]: lambda: [*value, 1.0],
        dict[str, str]: lambda: {**value, "x": "x"},
        dict[str, list[str]]: lambda: {**value, "x": ["x"]},
        dict[str, Any]: lambda: {**value, "x": 1},
        dict[str, Block]: lambda: {**value, "x": {"kind": "iid"}},
    }
    return made[kind]()


def rewritten(run: Path, change: dict[str, object]) -> None:
    """A chain calculated anew, with the last entry changed: only what follows from it can tell."""
    entries = audit.parse((run / audit.NAME).read_bytes())
    last = audit.Entry.following(entries[-2], "finished", {**entries[-1].body, **change})
    content = b"".join(e.line() for e in [*entries[:-1], last])
    (run / audit.NAME).write_bytes(content)


def test_results_must_follow_from_the_measurements(run: Path) -> None:
    results = run / "results.json"
    found = json.loads(results.read_text())
    found["final"]["worst_partner_accuracy"] += 0.01
    text = json.dumps(found, indent=2) + "\n"
    results.write_text(text)
    entries = audit.parse((run / audit.NAME).read_bytes())
    files = {**entries[-1].body["files"], "results.json": audit.sha256(text.encode()).hexdigest()}
    rewritten(run, {"files": files})
    assert verify(run).problems == [
        "results.json: final: worst_partner_accuracy: does not follow from the log and the last "
        "checkpoint"
    ]


@pytest.mark.parametrize(("logged", "cut"), [(True, 0), (False, 0), (True, 40)])
def test_a_crash_after_any_round_is_no_damage(tmp_path: Path, logged: bool, cut: int) -> None:
    run = SmallRun(tmp_path / "run")
    run.round()
    run.round(logged=logged)
    log = run.directory / audit.NAME
    if cut:
        log.write_bytes(log.read_bytes()[:-cut])
    with (run.directory / "decisions.jsonl").open("a") as file:
        file.write('{"round": 3, "par')
    verdict = verify(run.directory)
    assert verdict.problems == []
    assert any("not finished" in note for note in verdict.notes)
    path = run.directory / "decisions.jsonl"
    path.write_bytes(path.read_bytes()[: path.read_bytes().rfind(b"\n") + 1])
    continued = SmallRun(run.directory)
    continued.round()
    continued.finish()
    verdict = verify(run.directory)
    assert verdict.problems == []
    assert verdict.notes == ["the run was interrupted and continued after round 2"]
    rounds = audit.rounds_of(audit.parse(log.read_bytes()))
    assert sorted(rounds) == [1, 2, 3]


def test_a_crash_between_log_and_results_is_no_damage(tmp_path: Path) -> None:
    run = SmallRun(tmp_path / "run")
    run.round()
    run.finish(written=False)
    verdict = verify(run.directory)
    assert verdict.problems == []
    assert any("results.json is missing" in note for note in verdict.notes)
    again = SmallRun(run.directory)
    again.finish()
    assert verify(run.directory).problems == []


def test_a_round_repeated_from_an_older_checkpoint_counts_as_last_written(tmp_path: Path) -> None:
    run = SmallRun(tmp_path / "run")
    run.round()
    run.round()
    shutil.rmtree(run.directory / "checkpoints/round-000002")
    again = SmallRun(run.directory)
    again.round(logged=False)
    third = SmallRun(run.directory)
    third.round()
    third.finish()
    assert verify(run.directory).problems == []
    kinds = [e.kind for e in audit.parse((run.directory / audit.NAME).read_bytes())]
    assert kinds.count("round") == 4


def test_a_run_is_not_continued_on_what_was_changed(tmp_path: Path) -> None:
    run = SmallRun(tmp_path / "run")
    run.round()
    path = run.directory / "checkpoints/round-000001/run.json"
    content = path.read_text()
    path.write_text(content.replace("0.6", "0.5"))
    with pytest.raises(UserError, match="round-000001"):
        SmallRun(run.directory)
    path.write_text(content)
    log = run.directory / audit.NAME
    log.write_bytes(log.read_bytes().replace(b'"a"', b'"z"', 1))
    with pytest.raises(UserError, match="line 1"):
        SmallRun(run.directory)


def test_no_log_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", str(tmp_path)]) == 2
    assert "no audit log" in capsys.readouterr().err


def test_the_digest_covers_every_package_that_a_run_may_import() -> None:
    root = Path(audit.__file__).parent.parent
    packages = {path.parent.name for path in root.glob("*/__init__.py")} - {"bench", "tests"}
    assert packages <= set(audit.PACKAGES)
    assert [name for name in audit.PACKAGES if not (root / name).is_dir()] == []
