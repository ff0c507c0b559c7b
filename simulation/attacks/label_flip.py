"""Label flip: train honestly on wrong labels (Biggio et al. 2012)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Generator


@dataclass(frozen=True)
class LabelFlip:
    """Label y becomes ``classes - 1 - y``.

    Attributes:
        classes: number of labels.
    """

    classes: int = 2

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise ValueError(f"classes: must be >= 2, got {self.classes}")

    def poison(
        self, texts: Sequence[str], labels: Sequence[int], generator: Generator
    ) -> tuple[list[str], list[int]]:
        """The same texts with flipped labels."""
        return list(texts), [self.classes - 1 - label for label in labels]
