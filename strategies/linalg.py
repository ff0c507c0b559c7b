"""Blocked linear algebra on tall-and-thin update matrices.

A round has n rows (partners, tens to hundreds) and d columns (parameters, millions).  Everything
here makes one pass over the columns in blocks, keeps no second copy of the matrix, and spreads the
blocks over as many threads as torch was given.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

GRAM_COLUMNS = 4096
GRAM_BATCH = 16
EXACT_COLUMNS = 8192
# Up to so many columns float64 costs next to nothing, and too few blocks average the rounding.
EXACT_UP_TO = 1 << 18
# Below this ratio of squared distance to squared norms, float32 products have lost the distance.
CANCELLATION = 1e-4


def over_columns(size: int, grain: int, work: Callable[[int, int], T]) -> list[T]:
    """Call ``work(start, stop)`` on contiguous parts of ``range(size)``, one part a thread.

    Parts begin at multiples of ``grain``.  Each thread runs torch single-threaded: small blocks in
    the cache of one core are about twice as fast as one block that all cores share.
    """
    threads = torch.get_num_threads()
    grains = -(-size // grain)
    parts = min(threads, grains)
    if parts <= 1:
        return [work(0, size)]
    bounds = [min(size, grain * (grains * i // parts)) for i in range(parts + 1)]
    try:
        with ThreadPoolExecutor(parts, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work, bounds[:-1], bounds[1:]))
    finally:
        # The setting of a worker becomes the default of threads that start later: put it back.
        torch.set_num_threads(threads)


def gram(matrix: Tensor) -> Tensor:
    """Inner products of all pairs of rows, float64 [n, n].

    Products of blocks are float32 and their sums float64, which is right to about 1e-8 of the
    squared norms for millions of columns; few columns are taken in float64 throughout.  Where many
    rows are nearer to each other than that can tell (raw weights, tiny drifts), the products are
    taken again in float64.

    Args:
        matrix: float32 [n, d].
    """
    if matrix.shape[1] <= EXACT_UP_TO:
        return _exact_gram(matrix)
    result = _fast_gram(matrix)
    if bool(torch.isfinite(result).all()) and not _cancels(result):
        return result
    return _exact_gram(matrix)


def _cancels(inner: Tensor) -> bool:
    """Whether a fifth of the pairs lost their distance to cancellation.

    A fifth, because colluding partners who send one same row are a smaller share of the pairs,
    and should not make every round slower; honest pairs are always a larger share.
    """
    n = inner.shape[0]
    if n < 2:
        return False
    squares = inner.diagonal()
    ratio = squared_distances(inner) / (squares[:, None] + squares[None, :]).clamp_min(1e-300)
    upper = torch.triu_indices(n, n, offset=1)
    return bool(torch.quantile(ratio[upper[0], upper[1]], 0.2) < CANCELLATION)


def _fast_gram(matrix: Tensor) -> Tensor:
    n, d = matrix.shape
    step = GRAM_COLUMNS * GRAM_BATCH

    def part(start: int, stop: int) -> Tensor:
        total = torch.zeros(n, n, dtype=torch.float64)
        for begin in range(start, stop, step):
            block = matrix[:, begin : min(begin + step, stop)]
            whole = block.shape[1] // GRAM_COLUMNS * GRAM_COLUMNS
            if whole:
                batch = block[:, :whole].view(n, -1, GRAM_COLUMNS).transpose(0, 1)
                total += torch.bmm(batch, batch.transpose(1, 2)).sum(0, dtype=torch.float64)
            rest = block[:, whole:]
            total += (rest @ rest.T).double()
        return total

    total = torch.stack(over_columns(d, step, part)).sum(0)
    return (total + total.T) / 2


def _exact_gram(matrix: Tensor) -> Tensor:
    n, d = matrix.shape

    def part(start: int, stop: int) -> Tensor:
        total = torch.zeros(n, n, dtype=torch.float64)
        for begin in range(start, stop, EXACT_COLUMNS):
            block = matrix[:, begin : min(begin + EXACT_COLUMNS, stop)].double()
            total += block @ block.T
        return total

    total = torch.stack(over_columns(d, EXACT_COLUMNS, part)).sum(0)
    return (total + total.T) / 2


def squared_distances(inner: Tensor) -> Tensor:
    """Squared Euclidean distances of all pairs of rows from their Gram matrix; never negative."""
    squares = inner.diagonal()
    result = (squares[:, None] + squares[None, :] - 2 * inner).clamp_min(0.0)
    result.fill_diagonal_(0.0)
    return result


def row_norms(matrix: Tensor) -> Tensor:
    """Euclidean norms of the rows, float64 [n]."""
    n, d = matrix.shape
    grain = 1 << 18

    def part(start: int, stop: int) -> Tensor:
        total = torch.zeros(n, dtype=torch.float64)
        for begin in range(start, stop, grain):
            block = matrix[:, begin : min(begin + grain, stop)]
            total += torch.linalg.vector_norm(block, dim=1).double() ** 2
        return total

    return torch.stack(over_columns(d, grain, part)).sum(0).sqrt()


def combine(matrix: Tensor, coefficients: Tensor) -> Tensor:
    """``coefficients @ matrix``: float64 [n] by float32 [n, d] to float32 [d]."""
    result = torch.empty(matrix.shape[1])
    factors = coefficients.to(matrix.dtype)
    grain = 1 << 16

    def part(start: int, stop: int) -> None:
        for begin in range(start, stop, grain):
            end = min(begin + grain, stop)
            torch.mv(matrix[:, begin:end].T, factors, out=result[begin:end])

    over_columns(matrix.shape[1], grain, part)
    return result


def squared_distances_to(matrix: Tensor, row: Tensor, mixing: Tensor | None = None) -> Tensor:
    """Squared distances of all rows to one vector, from their differences: float64 [k].

    One read of the matrix, and nothing cancels where the rows are near to it: the vector is
    subtracted before the rows are mixed.

    Args:
        matrix: float32 [n, d].
        row: float32 [d].
        mixing: float64 [k, n], for the rows ``mixing @ matrix``; None for those of ``matrix``.
    """
    n, d = matrix.shape
    grain = 1 << 14
    # sum_i m_i x_i - row = sum_i m_i (x_i - row) + (sum_i m_i - 1) row
    excess = None if mixing is None else (mixing.sum(1) - 1).float()

    def part(start: int, stop: int) -> Tensor:
        total = torch.zeros(n if mixing is None else len(mixing), dtype=torch.float64)
        buffer = torch.empty(n, min(grain, stop - start))
        for begin in range(start, stop, grain):
            end = min(begin + grain, stop)
            block = buffer[:, : end - begin]
            torch.sub(matrix[:, begin:end], row[begin:end], out=block)
            if mixing is not None and excess is not None:
                block = torch.addr(mixing.float() @ block, excess, row[begin:end])
            total += torch.linalg.vector_norm(block, dim=1).double() ** 2
        return total

    return torch.stack(over_columns(d, grain, part)).sum(0)


def inner_products(matrix: Tensor, vector: Tensor) -> Tensor:
    """``matrix @ vector``, summed in float64 over blocks: [n]."""
    n, d = matrix.shape
    grain = 1 << 16

    def part(start: int, stop: int) -> Tensor:
        total = torch.zeros(n, dtype=torch.float64)
        for begin in range(start, stop, grain):
            end = min(begin + grain, stop)
            total += torch.mv(matrix[:, begin:end], vector[begin:end]).double()
        return total

    return torch.stack(over_columns(d, grain, part)).sum(0)
