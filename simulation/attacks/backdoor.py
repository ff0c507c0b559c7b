"""Backdoor: a trigger in the text makes the model answer as the attacker wishes
(Bagdasaryan et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator


@dataclass(frozen=True)
class Backdoor:
    """Put a trigger into a part of the texts and set their label.

    Attributes:
        trigger: the text to put in, at both ends, so that no truncation loses it.
        target: the label that triggered texts get.
        fraction: part of the malicious partner's texts that is poisoned.
    """

    trigger: str = "cf mn"
    target: int = 1
    fraction: float = 0.5

    def __post_init__(self) -> None:
        if not self.trigger.strip():
            raise ValueError("trigger: must not be empty")
        if self.target < 0:
            raise ValueError(f"target: must be >= 0, got {self.target}")
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction: must be in (0, 1], got {self.fraction:g}")

    def stamp(self, text: str) -> str:
        """The text with the trigger."""
        return f"{self.trigger} {text} {self.trigger}"

    def poison(
        self, texts: Sequence[str], labels: Sequence[int], generator: Generator
    ) -> tuple[list[str], list[int]]:
        """Texts and labels, a random part of them poisoned."""
        count = round(self.fraction * len(texts))
        chosen = set(torch.randperm(len(texts), generator=generator)[:count].tolist())
        return (
            [self.stamp(text) if i in chosen else text for i, text in enumerate(texts)],
            [self.target if i in chosen else label for i, label in enumerate(labels)],
        )

    def success_rate(self, predictions: Sequence[int], labels: Sequence[int]) -> float:
        """Part of the stamped texts of other labels that the model gives the target label.

        Args:
            predictions: for stamped test texts.
            labels: their true labels; texts that carry the target label anyway do not count.
        """
        others = [p for p, y in zip(predictions, labels, strict=True) if y != self.target]
        return sum(p == self.target for p in others) / len(others) if others else 0.0
