"""Runs of the real command on a tiny BERT and made-up reviews.

What is tested of a process (how it is killed, what it leaves behind) starts one of its own.  All
other runs share one Ray with warm workers, as the trials of a sweep do: most of what such a run
takes is starting these.
"""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from common.evaluation import Evaluation
from scripts import simulate
from server.testset import TestSet

Start = Callable[..., "subprocess.Popen[str]"]
Run = Callable[..., str]


def still_alive(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Those that have not ended within `seconds`; one that nobody has reaped yet has ended."""

    def alive(process: psutil.Process) -> bool:
        try:
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    end = time.monotonic() + seconds
    while (left := [p for p in processes if alive(p)]) and time.monotonic() < end:
        time.sleep(0.1)
    return left


@pytest.fixture(scope="session")
def reviews_csv(
    reviews: tuple[list[str], list[int]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """600 reviews with three columns of other names; quotes, commas and UTF-8 inside."""
    path = tmp_path_factory.mktemp("data") / "reviews.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["Kommentar", "Urteil", "Haus"])
        for i, (text, label) in enumerate(zip(*reviews, strict=True)):
            quoted = f'{text}, "so schön", sagte er' if i % 5 == 0 else text
            writer.writerow([quoted, ["schlecht", "gut"][label], ["Nord", "Süd"][i % 2]])
    return path


@pytest.fixture(scope="session")
def job(tiny_bert: Path, reviews_csv: Path) -> list[str]:
    """Overrides of a small private job: 3 partners, 3 rounds, seconds."""
    return [
        f"model.base={tiny_bert}",
        "model.max_length=24",
        "data=csv",
        f"data.path={reviews_csv}",
        "data.columns.text=Kommentar",
        "data.columns.label=Urteil",
        "data.columns.groups=[Haus]",
        "data.labels=[schlecht,gut]",
        "partition=iid",
        "partition.blocks.partner.partners=3",
        "train.batch_size=48",
        "train.physical_batch=32",
        "privacy.delta=1e-4",
        "run.rounds=3",
        "run.workers=1",
        "strategy.server.lr=0.02",
    ]


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    cache = tmp_path_factory.mktemp("cache")
    return {**os.environ, "FEDACCORD_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "COLUMNS": "120"}


@pytest.fixture(scope="session")
def start(environment: dict[str, str]) -> Start:
    """Start `fedaccord simulate` with overrides; the caller waits for it."""

    def run(*overrides: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "scripts.cli", "simulate", *overrides],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    return run


@pytest.fixture(scope="session")
def run(environment: dict[str, str]) -> Iterator[Run]:
    """Run a simulation in this process to its end; gives what it prints."""

    def to_its_end(*overrides: str) -> str:
        said = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(said):
            for name, value in environment.items():
                patch.setenv(name, value)
            assert simulate.main(overrides, keep_workers=True) == 0, said.getvalue()
        return said.getvalue()

    yield to_its_end
    from simulation import workers as runtime

    runtime.end()


@dataclass(frozen=True)
class Measured:
    """A finished run, and the loss of every evaluation on the server's test rows, in order."""

    directory: Path
    losses: list[float]


def measured(run: Run, directory: Path, *overrides: str) -> Measured:
    """Run a simulation in this process and note what the server evaluates."""
    losses: list[float] = []
    evaluate = TestSet.evaluate

    def noted(*arguments: Any) -> Evaluation:
        losses.append((evaluation := evaluate(*arguments)).loss)
        return evaluation

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TestSet, "evaluate", noted)
        run(*overrides, f"run.dir={directory}")
    return Measured(directory, losses)


@pytest.fixture(scope="session")
def measured_run(run: Run, job: list[str], tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """A finished run of `job` with seed 1."""
    return measured(run, tmp_path_factory.mktemp("finished") / "run", *job, "run.seed=1")


@pytest.fixture(scope="session")
def finished(measured_run: Measured) -> Path:
    """The directory of a finished run of `job` with seed 1."""
    return measured_run.directory


@pytest.fixture(scope="session")
def crowd(run: Run, job: list[str], tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """A finished run of 21 partners with client-level noise, which delivers an average."""
    return measured(
        run,
        tmp_path_factory.mktemp("crowd") / "run",
        *job,
        "partition.blocks.partner.partners=21",
        "train.batch_size=4",
        "run.rounds=2",
        "run.average_last=1.0",
        "strategy/client_level=on",
        "strategy.client_level.noise_multiplier=5",
    )
