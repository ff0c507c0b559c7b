"""Centred clipping (Karimireddy et al. 2021, "Learning from history")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from strategies import checks
from strategies.robust.geometric_median import distances_to
from strategies.rows import Rows
from strategies.stage import Context, RobustRule, RuleResult, State


@dataclass(frozen=True)
class CentredClipping(RobustRule):
    """Move last round's update by the weighted mean of the clipped differences to it.

    Runs on coefficients of the rows and of the centre; the columns are touched for the distances
    to the centre, which are those of the differences themselves, and for the final combination.

    Attributes:
        f: malicious partners to tolerate; used to check n > 2f and f * cap < 1/2.
        tau: differences are clipped to this norm; None takes their median norm in each step.
        iterations: steps in a round.
    """

    f: int = 1
    tau: float | None = None
    iterations: int = 3
    title: ClassVar[str] = "Centred clipping"
    score_name: ClassVar[str | None] = "distance to the centre"
    breaks_at_half_weight: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.whole("f", self.f, 0)
        checks.whole("iterations", self.iterations, 1)
        if self.tau is not None:
            checks.number("tau", self.tau, 0.0, above=True)

    def check(self, n: int) -> None:
        """Raise UserError unless n > 2f."""
        checks.majority("centred_clipping", n, self.f)

    def init(self, size: int) -> State:
        """The centre starts at zero."""
        return {"centre": torch.zeros(size)}

    def apply(self, rows: Rows, weights: Tensor, state: State, context: Context) -> RuleResult:
        """``iterations`` steps from the centre."""
        n, centre = rows.count, state["centre"]
        moved = bool(centre.any())
        squares = torch.zeros(n + 1, n + 1, dtype=torch.float64)
        if self.iterations > 1:
            squares[:n, :n] = rows.distances
        to_centre = rows.squared_distances_from(centre) if moved else rows.norms**2
        squares[:n, n] = squares[n, :n] = to_centre
        place = torch.zeros(n + 1, dtype=torch.float64)
        place[n] = 1.0
        steps = weights.double()
        distances = to_centre.sqrt()
        for _ in range(self.iterations):
            distances = distances_to(squares, place)[:n]
            tau = float(distances.median()) if self.tau is None else self.tau
            factors = (tau / distances.clamp_min(1e-300)).clamp_max(1.0)
            steps = weights.double() * factors
            place = place * (1 - steps.sum())
            place[:n] += steps
        update = rows.combine(place[:n])
        if moved:
            update.add_(centre, alpha=float(place[n]))
        return RuleResult(update, steps, distances, {"centre": update})
