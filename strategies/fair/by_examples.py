"""Weights by the number of training rows (McMahan et al. 2017), with a cap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from strategies import checks
from strategies.fair.capping import check_cap, column
from strategies.stage import FairWeights, State
from strategies.weights import cap_weights


@dataclass(frozen=True)
class ByExamples(FairWeights):
    """Weights in proportion to the claimed number of rows, which may be noisy.

    Attributes:
        max_examples: a claim above it counts as this many; None for no such bound.
        cap: largest weight of one partner.
    """

    max_examples: int | None = None
    cap: float = 0.4
    needs: ClassVar[tuple[str, ...]] = ("examples",)

    def __post_init__(self) -> None:
        if self.max_examples is not None:
            checks.whole("max_examples", self.max_examples, 1)
        check_cap(self.cap)

    def weights(
        self, metrics: Mapping[str, Mapping[str, float]], state: State
    ) -> tuple[Tensor, State]:
        """Counts between 1 and ``max_examples``, scaled and capped."""
        counts = column(metrics, "examples").clamp(min=1.0, max=self.max_examples)
        return cap_weights(counts, self.cap), state
