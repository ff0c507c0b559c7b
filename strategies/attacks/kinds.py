"""What an attack may change: the updates, the metrics or the data of the malicious partners."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
            aggregate: the rule in use, from a matrix [n, d] to an update [d].
            generator: randomness of this round.
        """


@runtime_checkable
class MetricsAttack(Protocol):
    """Lies about the metrics that weights are made of."""

    def metrics(self, own: Mapping[str, float]) -> Mapping[str, float]:
        """What a malicious partner reports instead of its ``own`` metrics."""


@runtime_checkable
class DataAttack(Protocol):
    """Poisons the training data of a malicious partner before it trains honestly."""

    def poison(
        self, texts: Sequence[str], labels: Sequence[int], generator: Generator
    ) -> tuple[list[str], list[int]]:
        """Texts and labels to train on instead."""


Attack = UpdateAttack | MetricsAttack | DataAttack
