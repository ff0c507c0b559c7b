"""Sampling of partners: which of them a round asks."""

from __future__ import annotations

import math
from collections.abc import Sequence

from common.seeds import numpy_generator


def sample_size(partners: int, fraction: float) -> int:
    """The number of partners that a round asks: ceil(fraction * partners), at least one."""
    return partners if fraction >= 1.0 else max(1, math.ceil(fraction * partners))


def sample(partners: Sequence[str], fraction: float, seed: int, round_number: int) -> list[str]:
    """A uniform sample without replacement of ceil(fraction * n) partners, sorted by name.

    It depends on the arguments alone: neither on node ids, nor on the order in which partners
    registered, nor on what earlier rounds drew.

    Args:
        partners: all names, in any order.
        fraction: the share of them to sample, in (0, 1].
        seed: the run's seed.
        round_number: the round, from 1.
    """
    names = sorted(partners)
    if fraction >= 1.0:
        return names
    count = sample_size(len(names), fraction)
    generator = numpy_generator(seed, "sampling", round_number)
    return sorted(names[i] for i in generator.choice(len(names), size=count, replace=False))
