"""The conflict of robustness and fairness, and what eases it, in one table.

``python -m bench.conflict --dir DIR`` trains the federation of `bench.heads` widened to ten
partners (`partition=ten`: eight of IMDB and an honest minority of two of Rotten Tomatoes) under
plain averaging, robust rules alone, and robust rules with fair weights and appeals; without an
attack, and under every attack by two of the ten.  All at epsilon = 8.  It prints a Markdown table
and writes DIR/conflict.json.  Accuracies are means over the seeds, in points of 100.
``--without-attacks`` leaves the attacks out, for many seeds.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.progress import track

from bench.heads import Outcome, run
from bench.robustness import ATTACKS, strategy_of
from common.files import write_atomic

MALICIOUS = 2
APPEAL = "strategy/appeal=on"


def fair(name: str, **settings: float) -> list[str]:
    """Overrides that choose fair weights."""
    return [f"strategy/fair={name}", *(f"strategy.fair.{k}={v}" for k, v in settings.items())]


def rows() -> dict[str, list[str]]:
    """The strategies of the table, by what they are called in it."""
    plain, krum = strategy_of("mean", MALICIOUS), strategy_of("krum", MALICIOUS)
    multi = strategy_of("multi_krum", MALICIOUS)
    recommended = strategy_of("recommended", MALICIOUS)
    return {
        "plain averaging": plain,
        "plain + q-FFL (q = 1)": [*plain, *fair("qffl")],
        "plain + q-FFL (q = 5)": [*plain, *fair("qffl", q=5.0)],
        "plain + AFL": [*plain, *fair("afl")],
        "plain + AFL (lr = 1)": [*plain, *fair("afl", lr=1.0)],
        "plain + TERM": [*plain, *fair("term")],
        "plain + TERM (t = 10)": [*plain, *fair("term", t=10.0)],
        "plain + PropFair": [*plain, *fair("propfair")],
        "krum": krum,
        "krum + appeal": [*krum, APPEAL],
        "krum + q-FFL + appeal": [*krum, *fair("qffl"), APPEAL],
        "multi-krum": multi,
        "multi-krum + q-FFL + appeal": [*multi, *fair("qffl"), APPEAL],
        "median": strategy_of("median", MALICIOUS),
        "recommended without fair weights and appeal": [
            *recommended,
            "strategy/fair=uniform",
            "strategy/appeal=off",
        ],
        "recommended without appeal": [*recommended, "strategy/appeal=off"],
        "recommended": recommended,
    }


def measure(
    strategy: Sequence[str],
    seeds: Sequence[int],
    directory: Path,
    attacks: Sequence[str] = ATTACKS,
) -> dict[str, object]:
    """Figures of one strategy, means over seeds, in points."""
    clean = [_train([*strategy, "attack=none"], seed, directory) for seed in seeds]
    spread = [statistics.pvariance([100 * a for a in o.partners.values()]) for o in clean]
    attacked = {}
    for attack in attacks:
        given = [*strategy, f"attack={attack}", f"attack.count={MALICIOUS}"]
        attacked[attack] = _points([_train(given, seed, directory).test for seed in seeds])
    worst = min(attacked, key=lambda name: attacked[name], default=None)
    return {
        "accuracy": _points([o.test for o in clean]),
        "partners": _points([statistics.fmean(o.partners.values()) for o in clean]),
        "variance": statistics.fmean(spread),
        "worst_partner": _points([o.worst for o in clean]),
        "minority": _points([o.by_source["rotten_tomatoes"] for o in clean]),
        "attacked": attacked,
        "worst_attack": worst,
        "under_worst_attack": None if worst is None else attacked[worst],
    }


def _points(values: Sequence[float]) -> float:
    return 100 * statistics.fmean(values)


def _train(overrides: Sequence[str], seed: int, directory: Path) -> Outcome:
    return run(("partition=ten", f"run.seed={seed}", *overrides), directory)


def markdown(found: dict[str, dict[str, object]]) -> str:
    """The table."""
    lines = [
        "| strategy | test accuracy | mean of partners | variance of partners | worst partner | "
        "minority (Rotten Tomatoes) | under the worst attack |",
        "| --- |" + " --- |" * 6,
    ]
    for name, row in found.items():
        keys = ("accuracy", "partners", "variance", "worst_partner", "minority")
        values = [f"{row[key]:.1f}" for key in keys]
        worst = f"{row['under_worst_attack']:.1f} {row['worst_attack']}" if row["attacked"] else ""
        lines.append(f"| {name} | " + " | ".join([*values, worst]) + " |")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure every strategy of `rows`, then print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.conflict", description=__doc__)
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--without-attacks", action="store_true")
    given = parser.parse_args(argv)
    attacks = () if given.without_attacks else ATTACKS
    seeds = [int(seed) for seed in given.seeds.split(",")]
    torch.set_num_threads(1)
    given.dir.mkdir(parents=True, exist_ok=True)
    found = {}
    for name, strategy in track(rows().items(), "strategies"):
        found[name] = measure(strategy, seeds, given.dir, attacks)
        write_atomic(given.dir / "conflict.json", json.dumps(found, indent=1) + "\n")
    print(markdown(found))


if __name__ == "__main__":
    main()
