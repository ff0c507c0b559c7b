"""Coordinate-wise rules: stream over blocks of columns that fit in the cache.

A rule says how each column is merged in two ways that agree: as element-wise operations on rows
(for equal weights, through a sorting network) and as a weight for each place of the sorted column
(for any weights).  The second also tells, on a sample of columns, the share that each row had.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from strategies import linalg
from strategies.rows import Rows
from strategies.weights import is_uniform

# Writes the merged block into its third argument, from rows and a spare row that it may overwrite.
RowKernel = Callable[[list[Tensor], Tensor, Tensor], None]
# Sorted values and their rows' weights [n, b] to a weight for each place [n, b], columns sum to 1.
PlaceWeights = Callable[[Tensor, Tensor], Tensor]

CACHE_VALUES = 24 * 65_536
SHARE_COLUMNS = 4_096


def merge(
    rows: Rows, weights: Tensor, kernel: RowKernel, places: PlaceWeights
) -> tuple[Tensor, Tensor]:
    """The merged update [d] and the share of each row [n].

    Shares are the mean weight that a row had in a column, over at most 4,096 evenly spaced
    columns (a standard error below 0.8 points).
    """
    update = _by_kernel(rows, kernel) if is_uniform(weights) else _by_sort(rows, weights, places)
    return update, sampled_shares(rows, weights, places)


def block_columns(count: int, size: int) -> int:
    """How many columns of ``count`` rows fill the cache without exceeding a twentieth of d."""
    fit = CACHE_VALUES // max(count, 1)
    small = max(size // 40, 4096)
    return max(1024, min(fit, 65_536, small) // 1024 * 1024)


def _by_kernel(rows: Rows, kernel: RowKernel) -> Tensor:
    update = torch.empty(rows.size)
    step = block_columns(rows.count, rows.size)

    def part(start: int, stop: int) -> None:
        buffer = torch.empty(rows.count + 1, min(step, stop - start))
        for begin in range(start, stop, step):
            end = min(begin + step, stop)
            block = buffer[:, : end - begin]
            rows.block(begin, end, block[:-1])
            *values, spare = block.unbind(0)
            kernel(values, spare, update[begin:end])

    linalg.over_columns(rows.size, step, part)
    return update


def _by_sort(rows: Rows, weights: Tensor, places: PlaceWeights) -> Tensor:
    update = torch.empty(rows.size)
    # Sorting holds values, int64 indices and weights at once.
    step = max(1024, block_columns(rows.count, rows.size) // 8)

    def part(start: int, stop: int) -> None:
        buffer = torch.empty(rows.count, min(step, stop - start))
        for begin in range(start, stop, step):
            end = min(begin + step, stop)
            block = rows.block(begin, end, buffer[:, : end - begin])
            values, index = _sorted(block)
            place = places(values, weights.float()[index])
            torch.sum(values * place, dim=0, out=update[begin:end])

    linalg.over_columns(rows.size, step, part)
    return update


def _sorted(block: Tensor) -> tuple[Tensor, Tensor]:
    values, index = torch.sort(block.T.contiguous(), dim=1)
    return values.T, index.T


def sampled_shares(rows: Rows, weights: Tensor, places: PlaceWeights) -> Tensor:
    """The mean weight of each row over evenly spaced columns, float64 [n]."""
    step = -(-rows.size // SHARE_COLUMNS)
    values, index = _sorted(rows.columns(slice(0, rows.size, step)))
    place = places(values, weights.float()[index])
    shares = torch.zeros(rows.count, values.shape[1])
    shares.scatter_(0, index, place)
    return shares.double().mean(1)


def nearest(values: Tensor, weights: Tensor, keep: int) -> Tensor:
    """Place weights that average the ``keep`` values nearest to the median of a sorted column."""
    n = values.shape[0]
    median = (values[(n - 1) // 2] + values[n // 2]) / 2
    order = (values - median).abs().argsort(dim=0, stable=True)
    mask = torch.zeros_like(values).scatter_(0, order[:keep], 1.0)
    return normalise_kept(mask, weights)


def normalise_kept(mask: Tensor, weights: Tensor) -> Tensor:
    """Weights where ``mask`` is one, scaled to sum to 1; equal ones where all of them are zero."""
    kept = mask * weights
    total = kept.sum(0)
    return torch.where(total > 0, kept / total.clamp_min(1e-30), mask / mask.sum(0))


def sum_nearest(values: list[Tensor], median: Tensor, keep: int, spare: Tensor) -> Tensor:
    """The sum of the ``keep`` entries nearest to the median, from fully sorted rows.

    They are ``keep`` neighbours in the sorted column.  Sliding that window by one place replaces
    its least entry by the one just above it, and pays exactly while the new one is nearer; so
    each entry above competes with the one ``keep`` places below, and no large values are ever
    added and taken away again.
    """
    n = len(values)
    slots = values[:keep]
    for above in range(keep, n):
        old = slots[above % keep]
        torch.add(old, values[above], out=spare)
        # old is the nearer one when median - old <= new - median.
        nearer = spare >= 2 * median
        slots[above % keep] = torch.where(nearer, old, values[above])
    total = spare
    total.copy_(slots[0])
    for slot in slots[1:]:
        total.add_(slot)
    return total
