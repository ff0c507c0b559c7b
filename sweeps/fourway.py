"""The four-way study: privacy, attack and fairness, each on and off.

Turns the results.json of every cell and seed into one document (`fourway.json`, docs/four-way.md)
and one table. Partners that attack in one cell are left out of all figures over partners in every
cell, so that all cells compare the same partners.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

SCHEMA_VERSION = 1
FIGURES = (
    "accuracy",
    "mean_partner_accuracy",
    "worst_partner_accuracy",
    "worst_group_accuracy",
    "gap",
    "epsilon",
    "attack_loss",
)


@dataclass(frozen=True)
class Cell:
    """One of the eight combinations."""

    dp: bool
    attack: bool
    fair: bool

    @property
    def name(self) -> str:
        """`dp-attack`, ...; `none` where everything is off."""
        parts = {"dp": self.dp, "attack": self.attack, "fair": self.fair}
        return "-".join(part for part, on in parts.items() if on) or "none"

    @property
    def quiet(self) -> Cell:
        """The same without the attack."""
        return Cell(self.dp, False, self.fair)


# Each attacked cell stands under the one that it is compared with.
CELLS = tuple(Cell(dp, attack, fair) for dp, fair, attack in product((False, True), repeat=3))
Results = Mapping[str, Any]


def measured(results: Results, attackers: Sequence[str]) -> dict[str, float | None]:
    """The figures of one run, without `attack_loss`, which compares two runs."""
    final = results["final"]
    honest = [
        row["accuracy"]
        for name, row in final["partners"].items()
        if name not in attackers and row["accuracy"] is not None
    ]
    groups = final["fairness"]["groups"].values()
    worst = [g["values"][g["worst"]]["accuracy"] for g in groups if g["worst"] is not None]
    gaps = [g["gaps"]["equalized_odds"]["value"] for g in groups if g["gaps"]["equalized_odds"]]
    return {
        "accuracy": final["accuracy"],
        "mean_partner_accuracy": float(np.mean(honest)) if honest else None,
        "worst_partner_accuracy": min(honest, default=None),
        "worst_group_accuracy": min(worst, default=None),
        "gap": max(gaps, default=None),
        "epsilon": final["epsilon"]["max"],
    }


def cells_of(
    found: Mapping[tuple[Cell, int], Results], seeds: Sequence[int], attackers: Sequence[str]
) -> list[dict[str, Any]]:
    """The document's `cells`: all runs, with mean and standard deviation over seeds."""
    figures = {key: measured(results, attackers) for key, results in found.items()}
    for (cell, seed), own in figures.items():
        before = figures.get((cell.quiet, seed), {}).get("accuracy")
        after = own["accuracy"]
        known = cell.attack and before is not None and after is not None
        own["attack_loss"] = before - after if known else None  # type: ignore[operator]
    cells = []
    for cell in CELLS:
        runs = [
            {
                "seed": seed,
                "config_hash": found[cell, seed]["config_hash"],
                **figures[cell, seed],
            }
            for seed in seeds
            if (cell, seed) in found
        ]
        cells.append(
            {
                "name": cell.name,
                "dp": cell.dp,
                "attack": cell.attack,
                "fair": cell.fair,
                "runs": runs,
                "mean": {name: _mean([r[name] for r in runs]) for name in FIGURES},
                "std": {name: _std([r[name] for r in runs]) for name in FIGURES},
            }
        )
    return cells


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean; None unless every run has a value."""
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def _std(values: Sequence[float | None]) -> float | None:
    """The sample standard deviation; None unless two or more runs all have a value."""
    known = [v for v in values if v is not None]
    return float(np.std(known, ddof=1)) if 1 < len(known) == len(values) else None


HEAD = (
    "DP",
    "fair",
    "attack",
    "seeds",
    "held-out accuracy",
    "mean partner",
    "worst partner",
    "worst group",
    "gap",
    "ε",
    "attack loss",
)


def rows(document: Mapping[str, Any]) -> list[list[str]]:
    """The table as text, one row per cell of the study."""
    found = []
    for cell in document["cells"]:
        mean, std = cell["mean"], cell["std"]
        shown = [_shown(name, mean[name], std[name]) for name in FIGURES]
        if not cell["dp"] and cell["runs"]:
            shown[FIGURES.index("epsilon")] = "∞"
        state = ["on" if cell[name] else "off" for name in ("dp", "fair", "attack")]
        found.append([*state, f"{len(cell['runs'])}/{len(document['seeds'])}", *shown])
    return found


def _shown(name: str, mean: float | None, std: float | None) -> str:
    if mean is None or not math.isfinite(mean):
        return "-"
    scale, digits = (1.0, 2) if name == "epsilon" else (100.0, 1)
    spread = f" ± {scale * std:.{digits}f}" if std is not None else ""
    return f"{scale * mean:.{digits}f}{spread}"


def markdown(document: Mapping[str, Any]) -> str:
    """The table and the switched overrides as Markdown."""
    lines = [HEAD, ["---"] * len(HEAD), *rows(document)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    attackers = ", ".join(document["attackers"]) or "nobody"
    switches = "; ".join(
        f"{name}: `{' '.join(document['switches'][name]['on'])}` against "
        f"`{' '.join(document['switches'][name]['off'])}`"
        for name in ("dp", "fair", "attack")
    )
    base = " ".join(document["base"]) or "defaults"
    return (
        f"{table}\n\n"
        "Accuracies, gaps and losses in percentage points, ± the standard deviation over seeds. "
        "Gap: the largest equalised-odds difference of all group columns. Attack loss: held-out "
        "accuracy without the attack minus accuracy with it. Figures over partners exclude the "
        f"attackers ({attackers}).\n\nBase: `{base}`. {switches}.\n"
    )
