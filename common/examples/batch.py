"""Batches, and the protocol of the examples that they are drawn from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from common.device import Device
from common.models.network import Network
from common.randomness import Stream

Ints = npt.NDArray[np.int64]
PAD_TO = 8
# One more batch costs about as much time as this many tokens of padding.
PADDING = 64


@dataclass(frozen=True)
class Batch:
    """n examples.

    Attributes:
        inputs: Token ids [n, t], or vectors [n, t, h].
        mask: [n, t]; 0 is padding.
        labels: Targets [n], or [n, k] where an example has more than one.
        indices: The places of the examples in their data set, [n].
        owner: For tagged words only.  A record is read in one or more windows; there are w >= n
            windows in the place of n, `labels` are [w, t], and `owner` [w] is the record of each.
        entered: Where vectors have passed the first trained layer's attention already: the mean
            vectors [n, h] that entered it.
    """

    inputs: Tensor
    mask: Tensor
    labels: Tensor
    indices: Ints
    owner: Tensor | None = None
    entered: Tensor | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def to(self, device: Device) -> Batch:
        """The same batch with its tensors on `device`."""
        if device.device.type == "cpu":
            return self
        return Batch(
            device.copy(self.inputs),
            device.copy(self.mask),
            device.copy(self.labels),
            self.indices,
            None if self.owner is None else device.copy(self.owner),
            None if self.entered is None else device.copy(self.entered),
        )


class Examples(Protocol):
    """Examples ready for the network: a map-style data set that returns whole batches."""

    @property
    def lengths(self) -> Ints:
        """Tokens of each example, [n]."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Batch: ...

    def __getitems__(self, indices: Sequence[int]) -> Batch: ...

    def logits(self, network: Network, batch: Batch) -> Tensor:
        """Run the part of the network that is still to be run on these examples."""

    def ready(self, indices: Ints) -> None:
        """Do at once, for all of `indices`, the work of reading an example for the first time."""

    def drawn(self, stream: Stream) -> Examples:
        """These examples for one training message, with their random parts drawn anew."""

    def release(self) -> None:
        """Unload mapped pages; reading an example again maps them again."""


def pad(rows: Sequence[Tensor], fill: float) -> tuple[Tensor, Tensor]:
    """Stack rows [t_i, ...] into [n, t, ...], and their mask [n, t].

    t is the longest t_i, rounded up to a multiple of PAD_TO.
    """
    longest = max((len(row) for row in rows), default=1)
    width = -(-longest // PAD_TO) * PAD_TO
    shape = (len(rows), width, *rows[0].shape[1:])
    stacked = torch.full(shape, fill, dtype=rows[0].dtype)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        stacked[i, : len(row)] = row
        mask[i, : len(row)] = 1
    return stacked, mask


def by_length(lengths: Ints, max_tokens: int) -> Iterator[Ints]:
    """Batches of indices of similar length, each of at most `max_tokens` padded tokens.

    Examples that are shorter than the longest add at most PADDING tokens of padding to a batch.
    """
    order = np.argsort(lengths, kind="stable")[::-1]
    widths = -(-np.maximum(lengths[order], 1) // PAD_TO) * PAD_TO
    start = 0
    while start < len(order):
        width = int(widths[start])
        end = start + max(1, max_tokens // width)
        padding = np.cumsum(width - widths[start:end])
        end = start + int(np.searchsorted(padding, PADDING, side="right"))
        yield order[start:end]
        start = end
