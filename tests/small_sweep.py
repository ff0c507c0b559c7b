"""A sweep's directory with figures of a formula, made in milliseconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sweeps.records import Document, Sweep, Trial, read_sweep, tell, write_document
from tests.small_run import small_run

LEVELS = {"epsilon_1": 0.98, "epsilon_3": 2.9, "epsilon_8": 7.9, "none": 0.0}
RATES = (0.2, 0.7, 2.0)


def accuracy(privacy: str, rate: float, seed: int) -> float:
    """Privacy costs much, the rate a little, a seed next to nothing."""
    cost = {"epsilon_1": 0.2, "epsilon_3": 0.1, "epsilon_8": 0.04, "none": 0.0}[privacy]
    return 0.8 - cost - 0.01 * abs(rate - 0.7) + 0.002 * (seed - 1)


def small_sweep(
    directory: Path,
    rates: tuple[float, ...] = RATES,
    seeds: tuple[int, ...] = (0, 1, 2),
    objectives: tuple[str, ...] = (),
    trouble: bool = True,
) -> Sweep:
    """Every privacy, rate and seed; with `trouble` one trial each failed, pruned and equal."""
    directory.mkdir(parents=True)
    swept = ["privacy", *(["strategy.server.lr"] if len(rates) > 1 else []), "run.seed"]
    jobs = [(p, r, s) for p in LEVELS for r in rates for s in seeds]
    total = len(jobs) + (3 if trouble else 0)
    write_document(
        directory, Document(["experiment=small"], "f" * 64, list(objectives), swept, total)
    )
    for number, job in enumerate(jobs):
        _finished(directory, number, *job)
        tell(directory, Trial(number, "finished", overrides(*job), f"c{number}", seconds=2.0))
    if trouble:
        n, first = len(jobs), overrides(*jobs[0])
        tell(directory, Trial(n, "failed", first, reason="run.seed: must be <b>0</b>"))
        tell(directory, Trial(n + 1, "pruned", first, reason="accuracy 41.0 % after round 2 of 8"))
        tell(directory, Trial(n + 2, "same", first, "c0", same_as=0))
    return read_sweep(directory)


def overrides(privacy: str, rate: float, seed: int) -> list[str]:
    return [
        "experiment=small",
        f"privacy={privacy}",
        f"strategy.server.lr={rate}",
        f"run.seed={seed}",
    ]


def _finished(directory: Path, number: int, privacy: str, rate: float, seed: int) -> None:
    template = directory / ".template"
    if not template.exists():
        small_run(template)
    results: dict[str, Any] = json.loads((template / "results.json").read_text())
    final = results["final"]
    final["accuracy"] = accuracy(privacy, rate, seed)
    final["worst_partner_accuracy"] = accuracy(privacy, rate, seed) - 0.1
    final["epsilon"]["max"] = LEVELS[privacy]
    place = directory / str(number)
    place.mkdir()
    (place / "results.json").write_text(json.dumps(results))
    (place / "report.html").write_text("a report")
