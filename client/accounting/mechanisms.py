"""What is accounted for: sampled Gaussian mechanisms, budgets, and bounds on epsilon."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from common.errors import UserError
from common.refusals import Reason, Refused


class BudgetExceeded(Refused):
    """A privacy budget does not allow a spend; nothing of it was done or reserved.

    `detail` says in full what is spent and what is left: for the partner's own log and ledger
    alone, because the number of records or other runs could be inferred from it.
    """

    def __init__(self, detail: str, reason: Reason = Reason.BUDGET, key: str = "") -> None:
        super().__init__(reason, detail, key)
        self.detail = detail


@dataclass(frozen=True, order=True)
class Segment:
    """``steps`` runs of the Poisson-sampled Gaussian mechanism, add/remove one record.

    ``noise_multiplier`` is the noise's standard deviation over the L2 sensitivity of the sum that
    is released (0 means no noise, so no privacy); ``sample_rate`` is the probability with which
    each record takes part in a step, independently of all others.  A noisy metrics release is the
    case ``sample_rate=1``: the plain Gaussian mechanism.

    Assumes Poisson sampling: batches of a fixed size are *not* covered by this bound.

    Raises:
        ValueError: if a value is outside its range.
    """

    noise_multiplier: float
    sample_rate: float
    steps: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.noise_multiplier) and self.noise_multiplier >= 0):
            raise ValueError(f"noise_multiplier is {self.noise_multiplier}, not a number >= 0")
        if not 0 <= self.sample_rate <= 1:
            raise ValueError(f"sample_rate is {self.sample_rate}, not between 0 and 1")
        if self.steps != int(self.steps) or self.steps < 0:
            raise ValueError(f"steps is {self.steps}, not a whole number >= 0")


@dataclass(frozen=True)
class Budget:
    """The most that may be spent: (epsilon, delta) differential privacy in all."""

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        if not self.epsilon > 0:
            raise ValueError(f"epsilon is {self.epsilon}, not above 0")
        check_delta_range(self.delta)


@dataclass(frozen=True)
class Epsilon:
    """An upper bound on epsilon and where it comes from.

    ``value`` is the bound to use; ``accountant`` names the one that gave it; ``prv`` is None when
    that accountant could not be used, and ``note`` then says why.
    """

    value: float
    accountant: Literal["prv", "rdp"]
    prv: float | None
    rdp: float
    note: str = ""


def check_delta(delta: float, records: int) -> None:
    """Refuse a delta that would allow publishing whole records.

    A mechanism that publishes each record with probability delta is (0, delta)-private, so delta
    must be below one over the number of records.  The message does not tell that number.

    Raises:
        UserError: if delta is not below 1 / records.
    """
    check_delta_range(delta)
    if delta * records >= 1:
        raise UserError(
            f"delta {delta:g} is not below 1 / number of training records at this partner: "
            "ask for a smaller delta"
        )


def merge(segments: Iterable[Segment]) -> tuple[Segment, ...]:
    """The same composition with as few segments as possible, in a canonical order.

    Equal (noise multiplier, sampling rate) add their steps.  All plain Gaussians (rate 1) become
    one step, exactly: k Gaussians of noise multipliers s_i compose to a single one of
    1 / sqrt(sum 1 / s_i^2) (Dong, Roth, Su, "Gaussian Differential Privacy", 2019).
    """
    steps: dict[tuple[float, float], int] = {}
    for segment in segments:
        if segment.steps > 0 and segment.sample_rate > 0:
            key = (float(segment.noise_multiplier), float(segment.sample_rate))
            steps[key] = steps.get(key, 0) + int(segment.steps)
    gaussians = sorted((s, k) for (s, q), k in steps.items() if q == 1.0)
    merged = [Segment(s, q, k) for (s, q), k in steps.items() if q < 1.0]
    if gaussians:
        if gaussians[0][0] == 0:
            merged.append(Segment(0.0, 1.0, 1))
        else:
            precision = math.fsum(k / s**2 for s, k in gaussians)
            merged.append(Segment(1 / math.sqrt(precision), 1.0, 1))
    return tuple(sorted(merged))


def check_delta_range(delta: float) -> None:
    """Raise ValueError unless 0 < delta < 1."""
    if not 0 < delta < 1:
        raise ValueError(f"delta is {delta}, not between 0 and 1")
