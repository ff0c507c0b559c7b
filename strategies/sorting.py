"""Sorting networks over rows: order statistics of every column by element-wise min and max.

A generic sort moves every column on its own; a network applies one comparator to two whole rows at
a time, which is what vector units do best.  Batcher's odd-even merge network (1968) is pruned to
the outputs that are needed, and comparators are dropped where two wires only enter one sum.
"""

from __future__ import annotations

from enum import Enum
from functools import lru_cache

import torch
from torch import Tensor


class Wire(Enum):
    """What is needed of a wire of the network."""

    UNUSED = 0
    SUMMED = 1
    EXACT = 2


class Keep(Enum):
    """Which outputs of a comparator are needed."""

    BOTH = 0
    LOW = 1
    HIGH = 2


Comparator = tuple[int, int, Keep]


def batcher(n: int) -> list[tuple[int, int]]:
    """Comparators of Batcher's odd-even merge sort for any n: (low wire, high wire) in order."""
    pairs = []
    p = 1
    while p < n:
        k = p
        while k >= 1:
            for j in range(k % p, n - k, 2 * k):
                for i in range(min(k, n - j - k)):
                    if (i + j) // (2 * p) == (i + j + k) // (2 * p):
                        pairs.append((i + j, i + j + k))
            k //= 2
        p *= 2
    return pairs


@lru_cache(maxsize=64)
def network(n: int, exact: frozenset[int], summed: frozenset[int]) -> tuple[Comparator, ...]:
    """The comparators needed to get some outputs of a sort of n rows right.

    Args:
        exact: ranks (0 = smallest) that must be on their own wire.
        summed: ranks of which only the sum is needed; their wires may hold them in any order.
    """
    wires = [Wire.UNUSED] * n
    for rank in summed:
        wires[rank] = Wire.SUMMED
    for rank in exact:
        wires[rank] = Wire.EXACT
    kept: list[Comparator] = []
    for low, high in reversed(batcher(n)):
        a, b = wires[low], wires[high]
        if a is b is Wire.UNUSED or a is b is Wire.SUMMED:
            continue
        keep = Keep.LOW if b is Wire.UNUSED else Keep.HIGH if a is Wire.UNUSED else Keep.BOTH
        kept.append((low, high, keep))
        wires[low] = wires[high] = Wire.EXACT
    return tuple(reversed(kept))


def run(comparators: tuple[Comparator, ...], rows: list[Tensor], spare: Tensor) -> Tensor:
    """Sort ``rows`` in place (the list's order of tensors changes); returns the free tensor."""
    for low, high, keep in comparators:
        if keep is Keep.LOW:
            torch.minimum(rows[low], rows[high], out=rows[low])
        elif keep is Keep.HIGH:
            torch.maximum(rows[low], rows[high], out=rows[high])
        else:
            torch.minimum(rows[low], rows[high], out=spare)
            torch.maximum(rows[low], rows[high], out=rows[high])
            rows[low], spare = spare, rows[low]
    return spare
