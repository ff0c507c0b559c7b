"""The objectives of a sweep, by name: their place in results.json and their direction."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from common.errors import UserError
from common.figures import ACCURACY, LOSS, MACRO_F1, Figure


@dataclass(frozen=True)
class Objective:
    """One objective.

    Attributes:
        title: Its name in reports.
        direction: Whether larger or smaller values are better.
        read: Its value from the content of results.json; None where it was not measured.
        share: Whether the value is a share, shown in percent.
    """

    title: str
    direction: Literal["maximize", "minimize"]
    read: Callable[[Mapping[str, Any]], float | None]
    share: bool = True


def _epsilon(results: Mapping[str, Any]) -> float | None:
    """The largest ε that a partner has spent; infinite without privacy."""
    spent = float(results["final"]["epsilon"]["max"])
    return spent if spent > 0 else math.inf


def _final(figure: Figure) -> Objective:
    """A figure of the delivered model."""
    return Objective(
        figure.words, figure.direction, lambda r: r["final"][figure.name], figure.share
    )


OBJECTIVES: dict[str, Objective] = {
    "accuracy": _final(ACCURACY),
    "worst_partner": Objective(
        "worst partner", "maximize", lambda r: r["final"]["worst_partner_accuracy"]
    ),
    "macro_f1": _final(MACRO_F1),
    "gap": Objective(
        "gap between groups", "minimize", lambda r: r["final"]["gaps"]["equalized_odds"]
    ),
    "epsilon": Objective("ε", "minimize", _epsilon, share=False),
    "loss": _final(LOSS),
    "seconds": Objective("seconds", "minimize", lambda r: r["cost"]["wall_seconds"], share=False),
}


def check(names: Sequence[str]) -> list[str]:
    """Check the names of objectives.

    Returns:
        The names.

    Raises:
        UserError: A name is unknown or repeated, or there is none.
    """
    for name in names:
        if name not in OBJECTIVES:
            raise UserError(
                f"objectives: there is no '{name}'; choose from {', '.join(OBJECTIVES)}"
            )
    if not names or len(set(names)) < len(names):
        raise UserError("objectives: must not be empty or repeated; name each objective once")
    return list(names)


def measures(results: Mapping[str, Any]) -> dict[str, float | None]:
    """The value of every objective, from the content of results.json."""
    return {name: objective.read(results) for name, objective in OBJECTIVES.items()}


def better(name: str, a: float, b: float) -> bool:
    """Whether `a` is strictly better than `b`."""
    return a > b if OBJECTIVES[name].direction == "maximize" else a < b


def finite(name: str, value: float) -> float:
    """A finite value for samplers: an infinite one becomes very bad."""
    worst = 1e6 if OBJECTIVES[name].direction == "minimize" else -1e6
    return value if math.isfinite(value) else worst


def pareto(names: Sequence[str], rows: Mapping[int, Sequence[float]]) -> list[int]:
    """The Pareto front.

    Args:
        names: The objectives.
        rows: The values of the objectives for each trial.

    Returns:
        The trials that no other trial dominates, in their order.
    """

    def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
        pairs = list(zip(names, a, b, strict=True))
        return not any(better(n, y, x) for n, x, y in pairs) and any(
            better(n, x, y) for n, x, y in pairs
        )

    return [k for k, row in rows.items() if not any(dominates(o, row) for o in rows.values())]
