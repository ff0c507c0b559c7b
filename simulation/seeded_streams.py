"""Streams that a seed repeats: for simulations, whose noise protects nobody.

A deployed partner or server never imports this module (`tests/common/test_randomness.py`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from common.randomness import Stream


class SeededStream(Stream):
    """The stream of a seed and of what it is for: the same on every machine and after a restart."""

    def __init__(self, seed: int, *key: str | int) -> None:
        text = "/".join(["stream", str(seed), *(str(part) for part in key)])
        super().__init__(hashlib.sha256(text.encode()).digest())


@dataclass(frozen=True)
class SeededStreams:
    """The streams of one simulated partner."""

    seed: int
    partner: str

    def __call__(self, purpose: str, key: str) -> Stream:
        """The stream for one use."""
        return SeededStream(self.seed, purpose, self.partner, key)
