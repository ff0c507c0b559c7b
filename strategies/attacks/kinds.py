"""What an attack may change here: the updates or the metrics of the malicious partners.

Attacks on their data run where the data is, in ``simulation.attacks``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

from torch import Generator, Tensor

Aggregate = Callable[[Tensor], Tensor]


@runtime_checkable
class UpdateAttack(Protocol):
    """Replaces the updates that malicious partners send."""

    def craft(
        self, honest: Tensor, own: Tensor, aggregate: Aggregate, generator: Generator
    ) -> Tensor:
        """The malicious rows [m, d].

        Args:
            honest: updates of the honest partners of this round [h, d], which colluders see.
            own: what the malicious partners would have sent [m, d].
            aggregate: the rule in use, from a matrix [h + m, d], the honest rows first, to an
                update [d].
            generator: randomness of this round.
        """


@runtime_checkable
class MetricsAttack(Protocol):
    """Lies about the metrics that weights are made of."""

    def metrics(self, own: Mapping[str, float]) -> Mapping[str, float]:
        """What a malicious partner reports instead of its ``own`` metrics."""


Attack = UpdateAttack | MetricsAttack
