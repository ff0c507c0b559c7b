"""Appeal: a second evaluation, on public data, of updates that the robust rule silenced.

A robust rule cannot distinguish an honest minority from an attack: both are far from the majority.
The server's small public validation set can, to some extent.  Each silenced update is clipped to
the median norm of the accepted updates and tried at a small weight.  It is readmitted when the
public loss with it is not higher than without it.

What an attacker can gain is bounded, whatever it sends: its norm by the accepted one, its weight
by ``weight_cap``, all readmitted weight together by ``total_cap`` and ``max_partners``; and
several updates that are harmless alone are judged once more together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from strategies import checks
from strategies.pre.clipping import clip_factors
from strategies.rows import Rows

Evaluate = Callable[[Tensor], float]


@dataclass(frozen=True)
class Verdict:
    """The merge after the appeals.

    Attributes:
        update: float32 [d].
        shares: float64 [n], weights after readmission.
        factors: float64 [n], clip factors of readmitted rows, 1 elsewhere.
        appeals: for each row that was heard, the weight it was tried at, the public loss without
            and with it, and whether it was readmitted.
    """

    update: Tensor
    shares: Tensor
    factors: Tensor
    appeals: Mapping[int, Mapping[str, float | bool]]


@dataclass(frozen=True)
class Appeal:
    """Readmit silenced updates that do not hurt on public data.

    Attributes:
        threshold: a row is heard when its share is below this part of the weight it asked for.
        weight_cap: most weight that one readmitted row gets (and never more than it asked for).
        total_cap: most weight that all readmitted rows get together.
        max_partners: most rows readmitted in a round.
        tolerance: by how much the public loss may rise, in the units of the loss.
    """

    threshold: float = 0.5
    weight_cap: float = 0.1
    total_cap: float = 0.3
    max_partners: int = 4
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        checks.number("threshold", self.threshold, 0.0, 1.0, above=True)
        checks.number("weight_cap", self.weight_cap, 0.0, 0.5, above=True)
        checks.number("total_cap", self.total_cap, self.weight_cap, 0.5)
        checks.whole("max_partners", self.max_partners, 1)
        checks.number("tolerance", self.tolerance, 0.0)

    def hear(
        self, rows: Rows, update: Tensor, asked: Tensor, shares: Tensor, evaluate: Evaluate
    ) -> Verdict:
        """Hear every silenced row, then all that passed together.

        Args:
            rows: the rows as they came, before any pre-aggregation.
            update: the robust rule's update [d].
            asked, shares: weight asked and given per row, [n].
            evaluate: loss on the public set when an update [d] is merged; lower is better.  It is
                called at most ``2n + 2 max_partners`` times.
        """
        silenced = (asked > 0) & (shares < self.threshold * asked)
        weights = (asked - shares).clamp(0.0, self.weight_cap)
        factors = clip_factors(rows.norms, _accepted_norm(rows, silenced, update))
        second = _SecondChance(rows, factors, update, evaluate)
        appeals: dict[int, dict[str, float | bool]] = {}
        gains: dict[int, float] = {}
        for i in silenced.nonzero().squeeze(1).tolist():
            without, with_it = second.losses([i], weights)
            passed = with_it <= without + self.tolerance
            appeals[i] = {
                "weight": float(weights[i]),
                "loss_without": without,
                "loss_with": with_it,
                "readmitted": False,
            }
            if passed:
                gains[i] = without - with_it
        chosen = self._within_bounds(sorted(gains, key=lambda i: (-gains[i], i)), weights)
        while len(chosen) > 1:
            without, with_all = second.losses(chosen, weights)
            if with_all <= without + self.tolerance:
                break
            chosen.pop()
        for i in chosen:
            appeals[i]["readmitted"] = True
        joint = float(weights[chosen].sum()) if chosen else 0.0
        after = shares * (1 - joint)
        after[chosen] += weights[chosen]
        applied = torch.ones_like(factors)
        applied[chosen] = factors[chosen]
        merged = second.merge(chosen, weights) if chosen else update
        return Verdict(merged, after, applied, appeals)

    def _within_bounds(self, ranked: list[int], weights: Tensor) -> list[int]:
        chosen: list[int] = []
        joint = 0.0
        for i in ranked[: self.max_partners]:
            if joint + float(weights[i]) <= self.total_cap + 1e-12:
                chosen.append(i)
                joint += float(weights[i])
        return chosen


@dataclass(frozen=True)
class _SecondChance:
    rows: Rows
    factors: Tensor
    update: Tensor
    evaluate: Evaluate

    def merge(self, chosen: list[int], weights: Tensor) -> Tensor:
        """``(1 - sum w) update + sum w_i clipped_i`` over the chosen rows."""
        coefficients = torch.zeros(self.rows.count, dtype=torch.float64)
        coefficients[chosen] = weights[chosen] * self.factors[chosen]
        joint = float(weights[chosen].sum())
        return self.rows.combine(coefficients).add_(self.update, alpha=1 - joint)

    def losses(self, chosen: list[int], weights: Tensor) -> tuple[float, float]:
        """Public loss with nothing in the place of the chosen rows, and with them.

        The first keeps their weight empty instead of giving it back to the others: an update is
        judged by what it adds, not by the step that it takes from others.
        """
        joint = float(weights[chosen].sum())
        without = self.evaluate(self.update * (1 - joint))
        with_them = self.evaluate(self.merge(chosen, weights))
        return without, with_them if math.isfinite(with_them) else math.inf


def _accepted_norm(rows: Rows, silenced: Tensor, update: Tensor) -> float:
    accepted = rows.norms[~silenced]
    if len(accepted):
        return float(accepted.median())
    return float(torch.linalg.vector_norm(update, dtype=torch.float64))
