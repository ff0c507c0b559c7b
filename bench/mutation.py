"""Mutation testing: which small faults in privacy and aggregation code does no test see?

    python -m bench.mutation client/clipping.py client/accounting --out mutation.jsonl
    python -m bench.mutation strategies/robust --out mutation.jsonl --seconds 500
    python -m bench.mutation --report --out mutation.jsonl

Each mutant (`bench.mutants`) costs one fork: the parent imports torch and all other packages once;
a child replaces the source of one module as it is imported, and runs the tests until one fails.
Nothing on the disk changes.  Before the first mutant, a child runs the tests unchanged and notes
for each which lines of the module it runs, and for how long.  A mutant is then shown only to the
tests that run its lines, the fastest first; where no test does (the line runs at import, or in a
process of its own), to all of them.  A mutant whose tests take far longer than unchanged counts as
killed.

Finished mutants are remembered in `--out` and not tried again, so that a run can be cut off and
continued.  `--again` tries those again that survived, after tests have been added.  `--every 4`
tries a quarter of the mutants, spread evenly.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import functools
import gc
import importlib
import importlib.machinery
import importlib.util
import json
import os
import resource
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

import pytest

from bench.mutants import Mutant, mutants, mutated

ROOT = Path(__file__).resolve().parent.parent
# Which tests are about which code; the first prefix counts.
TESTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "client/clipping.py",
        (
            "tests/client/test_clipping.py",
            "tests/client/test_bookkeeping.py",
            "tests/client/test_training.py",
            "tests/client/test_planted_faults.py",
        ),
    ),
    (
        "client/accounting/",
        (
            "tests/client/test_mechanisms.py",
            "tests/client/test_accounting_figures.py",
            "tests/client/test_accounting.py",
            "tests/auditing/test_trade_off.py",
        ),
    ),
    (
        "client/ledger/",
        (
            "tests/client/test_ledger_spends.py",
            "tests/client/test_ledger.py",
            "tests/client/test_ledger_damage.py",
            "tests/client/test_ledger_crash.py",
            "tests/client/test_division.py",
            "tests/client/test_ledger_truth.py",
            "tests/client/test_metrics.py",
        ),
    ),
    ("strategies/", ("tests/strategies",)),
)
# A mutant is stopped after this many times what its tests took, and this long at least.
PATIENCE, LEAST_PATIENCE = 5.0, 20.0
# A mutant may ask for any amount of memory; it gets this much, in bytes.
MEMORY = 6 * 2**30
ARGUMENTS = ("-q", "-p", "no:cacheprovider", "-p", "no:randomly", "--no-header", "--tb=no")


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant; `by` is the test that failed first."""

    file: str
    line: int
    name: str
    status: str
    by: str
    seconds: float


@dataclass
class Baseline:
    """The tests of a module, run unchanged: seconds of each, and the lines that each runs."""

    seconds: dict[str, float] = field(default_factory=dict)
    lines: dict[str, list[int]] = field(default_factory=dict)
    modules: list[str] = field(default_factory=list)

    def tests(self, mutant: Mutant) -> list[str]:
        """The tests that can see a mutant, the fastest first."""
        changed = range(mutant.line, mutant.last_line + 1)
        able = [t for t, lines in self.lines.items() if not set(changed).isdisjoint(lines)]
        if not mutant.function or not able:
            able = list(self.seconds)
        return sorted(able, key=self.seconds.__getitem__)


class Planted(importlib.machinery.SourceFileLoader):
    """Loads a module from a syntax tree in place of its file's."""

    def __init__(self, name: str, path: str, tree: ast.Module) -> None:
        super().__init__(name, path)
        self.tree = tree

    def get_code(self, fullname: str) -> CodeType:
        """The code of the tree; compiled files on the disk are neither read nor written."""
        code: CodeType = compile(self.tree, self.path, "exec", dont_inherit=True)
        return code


class Finder:
    """Finds one module, planted."""

    def __init__(self, name: str, path: Path, tree: ast.Module) -> None:
        self.name, self.path, self.tree = name, path, tree

    def find_spec(self, name: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        """The planted module's spec; None for all others."""
        if name != self.name:
            return None
        loader = Planted(name, str(self.path), self.tree)
        folder = [str(self.path.parent)] if self.path.name == "__init__.py" else None
        return importlib.util.spec_from_file_location(
            name, self.path, loader=loader, submodule_search_locations=folder
        )


class FirstFailure:
    """A pytest plugin that notes the first test that fails."""

    test = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a failure in any phase of a test."""
        if report.failed and not self.test:
            self.test = report.nodeid


class Recorder:
    """A pytest plugin that fills a `Baseline` for one file."""

    def __init__(self, path: Path) -> None:
        self.path, self.baseline = str(path), Baseline()
        self.running: set[int] = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Trace one test, with set-up and without what earlier tests left in caches."""
        _forget_cached()
        self.running = set()
        began = time.perf_counter()
        threading.settrace(self._enter)
        sys.settrace(self._enter)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]
            self.baseline.seconds[item.nodeid] = time.perf_counter() - began
            self.baseline.lines[item.nodeid] = sorted(self.running)

    def _enter(self, frame: FrameType, event: str, arg: object) -> Any:
        return self._line if frame.f_code.co_filename == self.path else None

    def _line(self, frame: FrameType, event: str, arg: object) -> Any:
        self.running.add(frame.f_lineno)
        return self._line


def _forget_cached() -> None:
    """Empty the project's `lru_cache`s: a cached result hides the lines that made it."""
    for cached in gc.get_objects():
        if isinstance(cached, functools._lru_cache_wrapper):
            home = sys.modules.get(getattr(cached, "__module__", ""))
            if home is not None and str(getattr(home, "__file__", "")).startswith(str(ROOT)):
                cached.cache_clear()


def module_name(path: str) -> str:
    """`client/ledger/__init__.py` is `client.ledger`."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def tests_of(path: str) -> list[str]:
    """The tests that are about a file.

    Raises SystemExit where the table has none.
    """
    for prefix, tests in TESTS:
        if path.startswith(prefix):
            return [test for test in tests if (ROOT / test).exists()]
    raise SystemExit(f"{path}: bench/mutation.py has no tests for it; add them to TESTS")


def in_child(work: Any, seconds: float) -> tuple[str, Any]:
    """Run `work()` in a fork and return ("done", its result), ("timeout", None) or ("died", None).

    The child has a process group of its own, all of which is ended with it.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        child = os.fork()
        if child == 0:
            os.setsid()
            resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
            quiet = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(quiet, stream)
            try:
                answer.write_text(json.dumps(work()))
            except BaseException:
                os._exit(1)
            os._exit(0)
        ended = _waited(child, seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        if not ended:
            os.waitpid(child, 0)
            return "timeout", None
        return ("done", json.loads(answer.read_text())) if answer.exists() else ("died", None)


def _waited(child: int, seconds: float) -> bool:
    """Whether the child ended in time; it is then reaped."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if os.waitpid(child, os.WNOHANG)[0]:
            return True
        time.sleep(0.01)
    return False


def baseline(path: str) -> Baseline:
    """The unchanged tests of a file.

    Raises SystemExit where they do not pass.
    """

    def work() -> dict[str, Any]:
        recorder = Recorder(ROOT / path)
        code = pytest.main([*ARGUMENTS, "-x", *tests_of(path)], plugins=[recorder])
        outside = [name for name, module in sys.modules.items() if _is_foreign(module)]
        return {"code": int(code), **asdict(recorder.baseline), "modules": outside}

    status, answer = in_child(work, 3600.0)
    if status != "done" or answer.pop("code") != 0:
        raise SystemExit(f"{path}: its tests do not pass unchanged; run them first")
    return Baseline(**answer)


def _is_foreign(module: ModuleType) -> bool:
    """Whether a module is neither the project's nor a test's, so that the parent may import it."""
    file = getattr(module, "__file__", None)
    return file is not None and not str(file).startswith(str(ROOT))


def preload(modules: Sequence[str]) -> None:
    """Import what the tests will import, once, so that each fork has it."""
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception:
            continue


def tried(path: str, mutant: Mutant, before: Baseline) -> Outcome:
    """Run a mutant's tests in a fork."""
    tests = before.tests(mutant)
    tree = mutated((ROOT / path).read_text(encoding="utf-8"), mutant.number)

    def work() -> dict[str, Any]:
        finder = Finder(module_name(path), ROOT / path, tree)
        sys.meta_path.insert(0, finder)  # type: ignore[arg-type]
        first = FirstFailure()
        code = int(pytest.main([*ARGUMENTS, "-x", *tests], plugins=[first]))
        return {"code": code, "by": first.test}

    began = time.perf_counter()
    patience = max(LEAST_PATIENCE, PATIENCE * sum(before.seconds[test] for test in tests))
    status, answer = in_child(work, patience)
    took = round(time.perf_counter() - began, 2)
    if status == "done":
        survived = answer["code"] == 0
        status, by = "survived" if survived else "killed", answer["by"]
    else:
        status, by = "killed", status
    return Outcome(path, mutant.line, mutant.name, status, by, took)


def remembered(out: Path) -> dict[tuple[str, str], Outcome]:
    """The last outcome of each mutant that was tried."""
    if not out.exists():
        return {}
    lines = out.read_text(encoding="utf-8").splitlines()
    outcomes = [Outcome(**json.loads(line)) for line in lines]
    return {(outcome.file, outcome.name): outcome for outcome in outcomes}


def files(targets: Sequence[str]) -> list[str]:
    """The modules under the targets, relative to the root of the project."""
    found: list[Path] = []
    for target in targets:
        path = ROOT / target
        found += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return [str(path.relative_to(ROOT)) for path in found]


def run(targets: Sequence[str], out: Path, seconds: float, again: bool, every: int) -> bool:
    """Try the mutants of `targets` that `out` does not have; whether all were tried in time."""
    until = time.monotonic() + seconds
    for path in files(targets):
        done = remembered(out)
        source = (ROOT / path).read_text(encoding="utf-8")
        left = [m for m in mutants(source)[::every] if _is_due(done.get((path, m.name)), again)]
        if not left:
            continue
        before = baseline(path)
        preload(before.modules)
        for number, mutant in enumerate(left):
            if time.monotonic() > until:
                return False
            outcome = tried(path, mutant, before)
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(outcome)) + "\n")
            if outcome.status == "survived":
                print(f"{path}:{outcome.line} survived: {outcome.name}", flush=True)
            if number % 50 == 49:
                print(f"{path}: {number + 1} of {len(left)}", flush=True)
    return True


def _is_due(outcome: Outcome | None, again: bool) -> bool:
    return outcome is None or (again and outcome.status == "survived")


def report(targets: Sequence[str], out: Path) -> None:
    """Print a table of all files tried, and every survivor, in Markdown."""
    done = remembered(out)
    print("| file | mutants | killed | survived | killed, % |\n| --- | ---: | ---: | ---: | ---: |")
    survivors: list[Outcome] = []
    paths = files(targets) if targets else sorted({path for path, _ in done})
    for path in paths:
        names = {m.name for m in mutants((ROOT / path).read_text(encoding="utf-8"))}
        outcomes = [o for (file, name), o in done.items() if file == path and name in names]
        lived = [outcome for outcome in outcomes if outcome.status == "survived"]
        survivors += lived
        if outcomes:
            killed = len(outcomes) - len(lived)
            share = 100 * killed / len(outcomes)
            print(f"| {path} | {len(outcomes)} | {killed} | {len(lived)} | {share:.0f} |")
    for outcome in survivors:
        print(f"- `{outcome.file}:{outcome.line}` `{outcome.name}`")


def main() -> int:
    """Try mutants, or report; exit code 0 when all were tried, 1 when the time was up."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("targets", nargs="*", help="files or folders, e.g. client/ledger")
    parser.add_argument("--out", type=Path, required=True, help="where outcomes are remembered")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after this long")
    parser.add_argument("--every", type=int, default=1, help="try one mutant in so many")
    parser.add_argument("--again", action="store_true", help="try survivors again")
    parser.add_argument("--report", action="store_true", help="print what is remembered")
    asked = parser.parse_args()
    os.chdir(ROOT)
    if asked.report:
        report(asked.targets, asked.out)
        return 0
    return 0 if run(asked.targets, asked.out, asked.seconds, asked.again, asked.every) else 1


if __name__ == "__main__":
    sys.exit(main())
