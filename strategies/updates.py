"""Partners' updates as one matrix: the layout of the tensors, one reply, and the round's cohort."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Names and shapes of the trainable tensors, in the order in which they are flattened."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.shapes):
            raise ValueError(f"{len(self.names)} names but {len(self.shapes)} shapes")
        if len(set(self.names)) != len(self.names):
            raise ValueError("tensor names must be unique")

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Layout:
        """The layout of ``tensors``, in their order."""
        return cls(tuple(tensors), tuple(tuple(t.shape) for t in tensors.values()))

    @property
    def size(self) -> int:
        """The number d of parameters."""
        return sum(math.prod(shape) for shape in self.shapes)

    def slices(self) -> Iterator[tuple[str, slice, tuple[int, ...]]]:
        """Name, place in the flat vector, and shape of every tensor."""
        start = 0
        for name, shape in zip(self.names, self.shapes, strict=True):
            stop = start + math.prod(shape)
            yield name, slice(start, stop), shape
            start = stop

    def flatten(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Copy ``tensors`` into one float32 vector of shape [d]."""
        flat = torch.empty(self.size, dtype=torch.float32)
        self.flatten_into(tensors, flat)
        return flat

    def flatten_into(self, tensors: Mapping[str, Tensor], out: Tensor) -> None:
        """Copy ``tensors`` into ``out`` of shape [d] without a temporary vector."""
        for name, place, shape in self.slices():
            if tuple(tensors[name].shape) != shape:
                raise ValueError(f"tensor {name}: shape {tuple(tensors[name].shape)}, not {shape}")
            out[place].copy_(tensors[name].detach().reshape(-1))

    def unflatten(self, flat: Tensor) -> dict[str, Tensor]:
        """Views of ``flat`` [d] under the tensors' names and shapes."""
        if flat.shape != (self.size,):
            raise ValueError(f"expected a vector of {self.size} values, got {tuple(flat.shape)}")
        return {name: flat[place].view(shape) for name, place, shape in self.slices()}


@dataclass(frozen=True)
class Reply:
    """What one partner sent: the delta of its trainable tensors, and metrics.

    Metrics that the fair weights read: ``loss`` (bounded loss of the *incoming* global model on
    the partner's validation split), ``accuracy``, ``examples`` (training rows, perhaps noisy) and
    ``gap`` (a difference between groups, in [-1, 1]).
    """

    partner: str
    delta: Mapping[str, Tensor]
    metrics: Mapping[str, float]


@dataclass
class Cohort:
    """The accepted updates of one round: a matrix that is allocated once and filled row by row.

    ``partners`` in the constructor are those sampled: they set the number of rows.  Afterwards
    ``partners``, ``metrics`` and ``matrix`` speak of the accepted rows only, in order of arrival.

    A matrix of more than ``memory_bytes`` is mapped from a nameless file in ``directory``: every
    rule streams over blocks of columns, so the system can drop the pages that are not in use.
    """

    layout: Layout
    sampled: Sequence[str]
    memory_bytes: int | None = None
    directory: Path | None = None
    partners: list[str] = field(default_factory=list, init=False)
    metrics: list[Mapping[str, float]] = field(default_factory=list, init=False)
    _buffer: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.sampled = tuple(self.sampled)
        if len(set(self.sampled)) != len(self.sampled):
            raise ValueError("partners must be unique")
        shape = (len(self.sampled), self.layout.size)
        fits = self.memory_bytes is None or 4 * math.prod(shape) <= self.memory_bytes
        self._buffer = torch.empty(shape) if fits else _mapped(shape, self.directory)

    def put(self, reply: Reply) -> None:
        """Add a screened reply as the next row."""
        if reply.partner not in self.sampled:
            raise ValueError(f"partner {reply.partner} was not sampled in this round")
        if reply.partner in self.partners:
            raise ValueError(f"partner {reply.partner} already replied in this round")
        self.layout.flatten_into(reply.delta, self._buffer[len(self.partners)])
        self.partners.append(reply.partner)
        self.metrics.append(dict(reply.metrics))

    def sort(self) -> None:
        """Bring the rows into the order in which the partners were sampled.

        Replies arrive in any order, and floating-point sums depend on it: a sorted cohort makes a
        round reproducible to the bit.
        """
        place = {name: i for i, name in enumerate(self.sampled)}
        order = sorted(range(len(self.partners)), key=lambda i: place[self.partners[i]])
        _permute_rows(self._buffer, order)
        self.partners = [self.partners[i] for i in order]
        self.metrics = [self.metrics[i] for i in order]

    @property
    def matrix(self) -> Tensor:
        """The accepted rows, float32 [n, d]; a view, so a change shows in the cohort."""
        return self._buffer[: len(self.partners)]


def _mapped(shape: tuple[int, int], directory: Path | None) -> Tensor:
    """A float32 tensor over a file that is gone with the process, however that ends."""
    with tempfile.TemporaryFile(dir=directory) as file:
        file.truncate(4 * math.prod(shape))
        return torch.from_numpy(np.memmap(file, np.float32, "r+", shape=shape))


def _permute_rows(matrix: Tensor, order: Sequence[int]) -> None:
    """``matrix[i] = old matrix[order[i]]`` in place, with one spare row (cycle by cycle)."""
    done = [False] * len(order)
    for first in range(len(order)):
        if done[first] or order[first] == first:
            continue
        spare = matrix[first].clone()
        here = first
        while order[here] != first:
            matrix[here].copy_(matrix[order[here]])
            done[here] = True
            here = order[here]
        matrix[here].copy_(spare)
        done[here] = True
