"""What rules withstand: the worst accuracy over attacks, for each share of malicious partners.

``python -m bench.robustness --dir DIR`` trains the federation of `bench.heads` (ten partners, the
embedded default data) under every rule x {0, 10, 20, 30 % malicious} x {IID, skewed partition} x
{DP on, off} x every attack on updates, metrics or labels, and writes into DIR

- ``cells.jsonl``, a line for every finished cell: the same command goes on after an interruption;
- ``robustness.md``, the tables; ``robustness.svg``, the same as a heat map.

A rule is told how many partners are malicious (at 0 %: one).  Where it cannot work with so many,
the cell says so.  The merged accuracy is that of the server's test rows, both sources pooled.
"""

from __future__ import annotations

import argparse
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from rich.progress import Progress

from bench.heads import encode, run
from common.errors import UserError
from common.files import append_lines, write_atomic

PARTNERS = 10
MALICIOUS = (0, 1, 2, 3)
RULES = (
    "mean",
    "median",
    "trimmed_mean",
    "krum",
    "multi_krum",
    "bulyan",
    "geometric_median",
    "meamed",
    "monna",
    "mda",
    "caf",
    "smea",
    "centred_clipping",
    "dnc",
    "signguard",
    "fltrust",
    "recommended",
)
ATTACKS = (
    "sign_flip",
    "gaussian",
    "ipm",
    "alie",
    "min_max",
    "min_sum",
    "mimic",
    "optimal_alie",
    "optimal_ipm",
    "free_rider",
    "loss_inflation",
    "label_flip",
)
PARTITIONS: Mapping[str, tuple[str, ...]] = {
    "skewed": ("partition=ten",),
    "IID": (
        "partition=iid",
        "partition.blocks.partner.partners=null",
        f"partition.blocks.partner.sizes={[1260] * PARTNERS}".replace(" ", ""),
    ),
}
PRIVACY: Mapping[str, str] = {"on": "privacy=dp", "off": "privacy=none"}
WITHOUT_F = ("mean", "fltrust")


@dataclass(frozen=True)
class Cell:
    """One rule in one world; `accuracies` by attack, mean over seeds; or why there are none."""

    rule: str
    malicious: int
    partition: str
    dp: str
    seeds: tuple[int, ...]
    accuracies: Mapping[str, float]
    refusal: str | None = None

    @property
    def key(self) -> tuple[str, int, str, str]:
        """What the cell is about."""
        return self.rule, self.malicious, self.partition, self.dp

    @property
    def worst(self) -> tuple[float, str] | None:
        """The lowest accuracy, and the attack that reached it."""
        return min((v, k) for k, v in self.accuracies.items()) if self.accuracies else None


def strategy_of(rule: str, f: int) -> list[str]:
    """Overrides that put a rule, told of `f` malicious partners, behind plain averaging."""
    if rule == "recommended":
        stages = ("robust", "pre.arc", "pre.nnm")
        return ["strategy=recommended", *(f"strategy.{stage}.f={f}" for stage in stages)]
    told = [] if rule in WITHOUT_F else [f"strategy.robust.f={f}"]
    return ["strategy=plain", f"strategy/robust={rule}", *told]


def measure(
    rule: str, malicious: int, partition: str, dp: str, seeds: Sequence[int], directory: Path
) -> Cell:
    """Train one cell under every attack."""
    torch.set_num_threads(1)
    attacks = ATTACKS if malicious else ("none",)
    accuracies = {}
    try:
        for attack in attacks:
            given = [*strategy_of(rule, max(malicious, 1)), *PARTITIONS[partition], PRIVACY[dp]]
            given += [f"attack={attack}"] + [f"attack.count={malicious}"] * bool(malicious)
            found = [run((*given, f"run.seed={seed}"), directory).test for seed in seeds]
            accuracies[attack] = sum(found) / len(found)
    except UserError as error:
        return Cell(rule, malicious, partition, dp, tuple(seeds), {}, str(error))
    return Cell(rule, malicious, partition, dp, tuple(seeds), accuracies)


def cells(path: Path, seeds: Sequence[int]) -> dict[tuple[str, int, str, str], Cell]:
    """The finished cells for these seeds; a line cut short by a kill is left out."""
    found = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            cell = Cell(**json.loads(line))
        except (TypeError, ValueError):
            continue
        if tuple(cell.seeds) == tuple(seeds):
            found[cell.key] = cell
    return found


def grid(rules: Sequence[str]) -> Iterator[tuple[str, int, str, str]]:
    """Every cell there is to run, the first ones over all rules."""
    for partition in PARTITIONS:
        for dp in PRIVACY:
            for malicious in MALICIOUS:
                for rule in rules:
                    yield rule, malicious, partition, dp


def markdown(found: Mapping[tuple[str, int, str, str], Cell], rules: Sequence[str]) -> str:
    """A table for each world: worst accuracy in points (of 100), with the attack's name."""
    parts = []
    for partition in PARTITIONS:
        for dp in PRIVACY:
            parts += ["", f"### {partition} partition, DP {dp}", ""]
            parts += ["| rule | no attack | 10 % | 20 % | 30 % |", "| --- |" + " --- |" * 4]
            for rule in rules:
                texts = [_text(found.get((rule, m, partition, dp))) for m in MALICIOUS]
                parts.append(f"| {rule} | " + " | ".join(texts) + " |")
    return "\n".join(parts).strip() + "\n"


def _text(cell: Cell | None) -> str:
    if cell is None:
        return ""
    if cell.worst is None:
        return "n/a"
    value, attack = cell.worst
    return f"{100 * value:.1f}" + (f" {attack}" if cell.malicious else "")


def svg(found: Mapping[tuple[str, int, str, str], Cell], rules: Sequence[str]) -> str:
    """The heat map as SVG text; the same cells give the same text."""
    with mpl.rc_context({"svg.hashsalt": "fedaccord", "svg.fonttype": "none"}):
        out = io.StringIO()
        _draw(found, rules).savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def _draw(found: Mapping[tuple[str, int, str, str], Cell], rules: Sequence[str]) -> Figure:
    figure = Figure(figsize=(11, 0.34 * len(rules) + 1.9), layout="constrained")
    worlds = [(partition, dp) for partition in PARTITIONS for dp in PRIVACY]
    panels = figure.subplots(1, len(worlds), sharey=True)
    image: Any = None
    for axes, (partition, dp) in zip(panels, worlds, strict=True):
        table = [[found.get((rule, m, partition, dp)) for m in MALICIOUS] for rule in rules]
        values = [[100 * c.worst[0] if c and c.worst else float("nan") for c in r] for r in table]
        image = axes.imshow(values, cmap="cividis", vmin=30, vmax=80, aspect="auto")
        for y, row in enumerate(values):
            for x, value in enumerate(row):
                known = value == value
                shade = "white" if known and value < 60 else "black"
                text = f"{value:.0f}" if known else "n/a"
                axes.text(x, y, text, ha="center", va="center", fontsize=8, color=shade)
        axes.set_title(f"{partition}, DP {dp}", fontsize=10)
        axes.set_xticks(range(len(MALICIOUS)), [f"{10 * m}" for m in MALICIOUS], fontsize=8)
        axes.set_yticks(range(len(rules)), [r.replace("_", " ") for r in rules], fontsize=8)
    figure.supxlabel("malicious partners, %", fontsize=9)
    bar = figure.colorbar(image, ax=list(panels), shrink=0.7)
    bar.set_label("worst accuracy over attacks, points of 100", fontsize=9)
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, then write the tables and the figure."""
    parser = argparse.ArgumentParser(prog="python -m bench.robustness", description=__doc__)
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--seeds", default="0", help="such as 0,1,2")
    parser.add_argument("--rules", default=",".join(RULES))
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    given = parser.parse_args(argv)
    seeds = [int(seed) for seed in given.seeds.split(",")]
    rules = given.rules.split(",")
    if unknown := set(rules) - set(RULES):
        parser.error(f"--rules: {', '.join(sorted(unknown))} unknown; there are {', '.join(RULES)}")
    given.dir.mkdir(parents=True, exist_ok=True)
    encode((), given.dir)
    path = given.dir / "cells.jsonl"
    found = cells(path, seeds)
    # Without what a kill may have left behind half-written.
    kept = [json.dumps(asdict(cell), sort_keys=True) + "\n" for cell in found.values()]
    write_atomic(path, "".join(kept))
    missing = [key for key in grid(rules) if key not in found]
    with (
        Progress() as progress,
        ProcessPoolExecutor(given.workers, mp_context=get_context("spawn")) as pool,
    ):
        bar = progress.add_task("cells", total=len(missing))
        for future in as_completed(
            [pool.submit(measure, *key, seeds, given.dir) for key in missing]
        ):
            cell = future.result()
            found[cell.key] = cell
            append_lines(path, asdict(cell))
            progress.advance(bar)
    write_atomic(given.dir / "robustness.md", markdown(found, rules))
    write_atomic(given.dir / "robustness.svg", svg(found, rules))


if __name__ == "__main__":
    main()
