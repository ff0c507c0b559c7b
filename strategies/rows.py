"""Rows of updates with the linear maps of the pre-aggregation kept as a small matrix.

Clipping, nearest-neighbour mixing and bucketing are linear maps of rows: row a becomes
``sum_i M[a, i] * x_i``.  Only M (k by n) is stored, so a pre-aggregation costs no copy of the
matrix: its Gram matrix is ``M G Mᵀ``, its blocks are mixed in the cache when a coordinate-wise
rule asks for them, and a combination of its rows is a combination of the original ones.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from strategies import distances, linalg


class Rows:
    """k rows over d columns: ``mixing @ base``, evaluated only where it is needed.

    Args:
        base: float32 [n, d], finite.
        mixing: float64 [k, n]; None for the rows of ``base`` themselves.
    """

    def __init__(self, base: Tensor, mixing: Tensor | None = None, origin: Rows | None = None):
        self.base = base
        self.mixing = mixing
        self._origin = self if origin is None else origin

    @property
    def count(self) -> int:
        """The number of rows."""
        return int(self.base.shape[0] if self.mixing is None else self.mixing.shape[0])

    @property
    def size(self) -> int:
        """The number of columns."""
        return int(self.base.shape[1])

    @cached_property
    def gram(self) -> Tensor:
        """Inner products of the rows, float64 [k, k]; computed once a round."""
        if self.mixing is None:
            return linalg.gram(self.base)
        product = self.mixing @ self._origin.gram @ self.mixing.T
        # Rounded differently on its two sides, where rules that compare pairs need them the same.
        return (product + product.T) / 2

    @cached_property
    def distances(self) -> Tensor:
        """Squared distances between the rows, float64 [k, k]; near rows are measured again."""
        if self.mixing is None:
            return distances.pairwise(self.base, self.gram)
        return distances.mixed(self.mixing, self._origin.gram, self._origin.distances)

    def squared_distances_to(self, index: int) -> Tensor:
        """Squared distances to one of the rows, float64 [k], without a Gram matrix of its own."""
        if self.mixing is None and "gram" not in self.__dict__:
            return linalg.squared_distances_to(self.base, self.base[index])
        return self.distances[index]

    def squared_distances_from(self, point: Tensor) -> Tensor:
        """Squared distances of the rows to any vector [d], float64 [k], from differences."""
        return linalg.squared_distances_to(self.base, point, self.mixing)

    @cached_property
    def norms(self) -> Tensor:
        """Euclidean norms of the rows, float64 [k], without a Gram matrix where there is none."""
        if self.mixing is None and "gram" not in self.__dict__:
            return linalg.row_norms(self.base)
        return self.gram.diagonal().clamp_min(0.0).sqrt()

    def mix(self, matrix: Tensor) -> Rows:
        """The rows ``matrix @ rows`` (float64 [m, k]); nothing is computed yet."""
        matrix = matrix.double()
        mixing = matrix if self.mixing is None else matrix @ self.mixing
        return Rows(self.base, mixing, self._origin)

    def scale(self, factors: Tensor) -> Rows:
        """Each row times its factor [k]; the same rows when all factors are one."""
        if bool((factors == 1).all()):
            return self
        scaled = self.mix(torch.diag(factors.double()))
        if "norms" in self.__dict__:
            scaled.__dict__["norms"] = self.norms * factors
        return scaled

    def combine(self, coefficients: Tensor) -> Tensor:
        """The vector ``coefficients @ rows``, float32 [d]."""
        coefficients = coefficients.double()
        if self.mixing is not None:
            coefficients = coefficients @ self.mixing
        return linalg.combine(self.base, coefficients)

    def inner_products(self, vector: Tensor) -> Tensor:
        """``rows @ vector``, float64 [k]."""
        products = linalg.inner_products(self.base, vector)
        return products if self.mixing is None else self.mixing @ products

    def block(self, start: int, stop: int, out: Tensor) -> Tensor:
        """Columns ``start:stop`` of every row, written into ``out`` [k, stop - start]."""
        part = self.base[:, start:stop]
        if self.mixing is None:
            return out.copy_(part)
        return torch.mm(self.mixing.float(), part, out=out)

    def columns(self, index: Tensor | slice) -> Tensor:
        """A copy of some columns, float32 [k, len(index)]."""
        part = self.base[:, index]
        return part.clone() if self.mixing is None else self.mixing.float() @ part

    def dense(self, out: Tensor | None = None) -> Tensor:
        """All rows as a new matrix, or written into ``out``, float32 [k, d].

        ``out`` may be the base itself, which is then overwritten.
        """
        result = torch.empty(self.count, self.size) if out is None else out
        factors = self._factors()
        if factors is not None:
            for i, factor in enumerate(factors.tolist()):
                if factor != 1 or result is not self.base:
                    torch.mul(self.base[i], factor, out=result[i])
            return result
        step = 1 << 14

        def part(start: int, stop: int) -> None:
            buffer = torch.empty(self.count, min(step, stop - start))
            for begin in range(start, stop, step):
                end = min(begin + step, stop)
                result[:, begin:end] = self.block(begin, end, buffer[:, : end - begin])

        linalg.over_columns(self.size, step, part)
        return result

    def _factors(self) -> Tensor | None:
        """The rows' factors [k] where they were only scaled."""
        if self.mixing is None:
            return torch.ones(self.count, dtype=torch.float64)
        if self.mixing.shape[0] != self.mixing.shape[1]:
            return None
        factors = self.mixing.diagonal()
        return factors if torch.equal(self.mixing, torch.diag(factors)) else None
