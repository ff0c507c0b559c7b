"""Loss inflation: lie about loss and size to gain weight, and use it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Generator, Tensor

from strategies import checks
from strategies.attacks.kinds import Aggregate


@dataclass(frozen=True)
class LossInflation:
    """Reports a high loss and many rows, and sends the negative of its own update.

    Attributes:
        loss: the loss to report; above the server's bound it would be refused.
        examples_factor: by how much to multiply the number of rows.
        scale: length of the update, as a multiple of its own.
    """

    loss: float = 5.0
    examples_factor: float = 100.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        checks.number("loss", self.loss, 0.0)
        checks.number("examples_factor", self.examples_factor, 0.0, above=True)
        checks.number("scale", self.scale, 0.0)

    def metrics(self, own: Mapping[str, float]) -> Mapping[str, float]:
        """The inflated report."""
        lie = dict(own)
        lie["loss"] = self.loss
        if "examples" in own:
            lie["examples"] = own["examples"] * self.examples_factor
        return lie

    def craft(
        self, honest: Tensor, own: Tensor, aggregate: Aggregate, generator: Generator
    ) -> Tensor:
        """Each partner's own update, turned around."""
        return -self.scale * own
