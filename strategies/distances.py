"""Squared distances between rows that stay right where rows nearly coincide.

``|x|² + |y|² - 2 x·y`` loses a distance that is small beside the norms.  Pairs that are so near are
measured again in float64 around one of them, with that row subtracted, until no pair is lost.
"""

from __future__ import annotations

import torch
from torch import Tensor

from strategies import linalg

# A distance is lost below this ratio to the squared norms: of float32 products, of float64 ones.
CANCELLATION = 1e-4
EXACT_CANCELLATION = 1e-8
PROBED_COLUMNS = 64


def pairwise(matrix: Tensor, inner: Tensor) -> Tensor:
    """Squared distances between all pairs of rows, float64 [n, n].

    Pairs that the Gram matrix can tell apart cost nothing more.  Each group of rows that nearly
    coincide costs one more pass in float64 over the columns, in which the group is measured
    against all rows, so that near twins are ranked by their distances and not by rounding.
    Identical rows cost no pass and get identical distances.

    Args:
        matrix: float32 [n, d], finite.
        inner: its Gram matrix, float64 [n, n].
    """
    result = linalg.squared_distances(inner)
    squares = inner.diagonal()
    lost = result < CANCELLATION * (squares[:, None] + squares[None, :])
    lost.fill_diagonal_(False)
    if not bool(lost.any()):
        return result
    first = _first_of_identical(matrix, lost)
    repeated = first != torch.arange(len(first))
    lost[repeated] = False
    lost[:, repeated] = False
    while bool(lost.any()):
        # A pivot settles all pairs that it lost: at most n passes, each over the group alone.
        pivot = int(lost.sum(1).argmax())
        near = lost[pivot].clone()
        near[pivot] = True
        group = near.nonzero().squeeze(1)
        products, lengths = _products_around(matrix, pivot, group)
        scale = lengths[group, None] + lengths[None, :]
        fresh = (scale - 2 * products).clamp_min(0.0)
        fresh[:, group] = (fresh[:, group] + fresh[:, group].T) / 2
        result[group] = fresh
        result[:, group] = fresh.T
        still = lost[group] & (fresh < EXACT_CANCELLATION * scale)
        lost[group] = still
        lost[:, group] = still.T
        lost[pivot] = False
        lost[:, pivot] = False
    result = result[first][:, first]
    result.fill_diagonal_(0.0)
    return result


def mixed(mixing: Tensor, inner: Tensor, distances: Tensor) -> Tensor:
    """Squared distances between the rows ``mixing @ X``, float64 [k, k].

    With c = M_a - M_b, its sum s and x_i the rows of X, ``|sum_i c_i x_i|²`` is
    ``s sum_i c_i |x_i|² - c D c / 2``: where the mixing keeps the sum of weights (averages), what
    the rows have in common drops out.  This form is taken for pairs that the Gram matrix of the
    mixed rows cannot tell apart, where it cancels less.

    Args:
        mixing: float64 [k, n].
        inner: the Gram matrix of X, float64 [n, n].
        distances: squared distances between the rows of X, float64 [n, n].
    """
    product = mixing @ inner @ mixing.T
    result = linalg.squared_distances((product + product.T) / 2)
    norms = product.diagonal()
    scale = norms[:, None] + norms[None, :]
    lost = result < CANCELLATION * scale
    lost.fill_diagonal_(False)
    if not bool(lost.any()):
        return result
    spread = mixing @ distances @ mixing.T
    spread = (spread + spread.T) / 2
    within = (spread.diagonal()[:, None] + spread.diagonal()[None, :]) / 2
    sums, moments = mixing.sum(1), mixing @ inner.diagonal()
    # A sum of 1 up to rounding is meant to be 1.
    sums = torch.where((sums - 1).abs() < 1e-12, 1.0, sums)
    gap = sums[:, None] - sums[None, :]
    other = gap * (moments[:, None] - moments[None, :]) + spread - within
    size = gap.abs() * (moments[:, None].abs() + moments[None, :].abs()) + spread + within
    result = torch.where(lost & (size < scale), other.clamp_min(0.0), result)
    result.fill_diagonal_(0.0)
    return result


def _first_of_identical(matrix: Tensor, lost: Tensor) -> Tensor:
    """For each row the index of the first row that equals it, among the pairs ``lost``."""
    n = len(matrix)
    first = torch.arange(n)
    for i, j in torch.triu(lost).nonzero().tolist():
        if first[i] != i or first[j] != j:
            continue
        probe = slice(0, PROBED_COLUMNS)
        if torch.equal(matrix[i, probe], matrix[j, probe]) and torch.equal(matrix[i], matrix[j]):
            first[j] = i
    return first


def _products_around(matrix: Tensor, pivot: int, group: Tensor) -> tuple[Tensor, Tensor]:
    """``(x_i - p)·(x_j - p)`` of a group with all rows, [g, n], and ``|x_j - p|²``, [n]."""
    n, d = matrix.shape
    grain = linalg.EXACT_COLUMNS

    def part(start: int, stop: int) -> Tensor:
        total = torch.zeros(len(group) + 1, n, dtype=torch.float64)
        buffer = torch.empty(n, min(grain, stop - start), dtype=torch.float64)
        for begin in range(start, stop, grain):
            end = min(begin + grain, stop)
            block = buffer[:, : end - begin].copy_(matrix[:, begin:end])
            block -= block[pivot].clone()
            total[:-1] += block[group] @ block.T
            total[-1] += torch.linalg.vector_norm(block, dim=1) ** 2
        return total

    total = torch.stack(linalg.over_columns(d, grain, part)).sum(0)
    return total[:-1], total[-1]
