"""What the trained layers read of a row: the vectors that its frozen prefix makes of its tokens.

They are computed once, when a row is first read, and kept on disk: a run trains on the rows that
its batches draw, which may be far from all.
"""

from __future__ import annotations

import errno
import math
import mmap
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from common.config import ModelConfig
from common.device import Device, keep_memory
from common.features import (
    PAD_TO,
    Batch,
    Examples,
    Ints,
    TokenExamples,
    by_length,
    pad,
    tokenize,
)
from common.files import built_once, private_directory, sha256_text
from common.model import Network
from common.randomness import Stream

# Rows whose prefix is computed at a time are chosen by tokens, not rows: bounded memory.
PREFIX_TOKENS = 2048
FILE = "vectors.bin"
# Of what lies in a store's file: raised where that changes.
VERSION = 2


class Store:
    """A file with room for the vectors of every row, [tokens, hidden], of which some are there.

    A row's vectors are there when its checksum, written after them, agrees: a process that dies in
    between, and a machine that loses power before its disk has all, cost no more than computing
    them again.  So do two processes that fill one file at once, since both write the same but for
    rounding, which can depend on the other rows that are computed with a row.
    Checksums tell which rows were drawn; they are as secret as the rows, in whose owner's folder
    they lie.
    """

    def __init__(self, path: Path, rows: TokenExamples, network: Network, device: Device) -> None:
        self.rows, self.network, self.device = rows, network, device
        mapped = np.memmap(path, np.uint8, "r+")
        self.file: mmap.mmap = mapped._mmap  # type: ignore[attr-defined]
        arrays = _cut(np.asarray(mapped), _layout(rows, network, device))
        self.sums, self.vectors = arrays["sums"], arrays["vectors"]
        self.entered = arrays.get("entered")
        self.whole = np.zeros(len(rows), dtype=np.bool_)

    def ready(self, indices: Ints) -> None:
        """Compute the vectors that are missing of these rows."""
        unread = np.unique(indices[~self.whole[indices]])
        if len(unread) == 0:
            return
        agrees = [self.sums[row] != 0 and self.sums[row] == self._sum(row) for row in unread]
        missing = unread[~np.array(agrees)]
        if len(missing) > 0:
            keep_memory()
            prefix = self.device.prefix_of(self.network.prefix)
            for places in by_length(self.rows.lengths[missing], PREFIX_TOKENS):
                self._compute(missing[places], prefix)
        self.whole[unread] = True

    def _compute(
        self, chosen: Ints, prefix: Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]
    ) -> None:
        batch = self.rows.__getitems__(chosen.tolist()).to(self.device)
        with torch.inference_mode(), self.device.autocast(), self.device.products():
            hidden, entered = prefix(batch.inputs, batch.mask)
        if self.entered is not None:
            assert entered is not None
            self.entered[chosen] = entered.cpu().numpy()
        hidden = hidden.to(self.device.dtype).cpu()
        flat = hidden.view(torch.int16) if hidden.dtype == torch.bfloat16 else hidden
        for row, vectors in zip(chosen, flat, strict=True):
            place = self._place(row)
            self.vectors[place] = vectors[: place.stop - place.start].numpy()
            self.sums[row] = self._sum(row)

    def _place(self, row: int) -> slice:
        return slice(int(self.rows.offsets[row]), int(self.rows.offsets[row + 1]))

    def _sum(self, row: int) -> int:
        """CRC-32 of a row's vectors; never 0, which is what a new file has."""
        found = zlib.crc32(self.vectors[self._place(row)].data)
        return (found if self.entered is None else zlib.crc32(self.entered[row].data, found)) or 1

    def release(self) -> None:
        """Unload the pages: a worker that serves many partners would hold all of their vectors."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self.file.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True)
class PrefixExamples:
    """Rows as prefix vectors, [total tokens, hidden], cut by `offsets` [n + 1].

    `entered` [n, hidden] as in `Batch`.  `store` holds both where they are kept on disk, and
    computes what is missing.
    """

    vectors: Tensor
    offsets: Ints
    labels: npt.NDArray[Any]
    entered: Tensor | None = None
    store: Store | None = None

    @property
    def lengths(self) -> Ints:
        """Tokens per row."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        chosen = np.asarray(indices, dtype=np.int64)
        if len(chosen) == 0:
            mask = torch.zeros((0, PAD_TO), dtype=torch.long)
            inputs = self.vectors.new_zeros((0, PAD_TO, self.vectors.shape[1]))
            return Batch(inputs, mask, mask[:, 0], chosen)
        self.ready(chosen)
        rows = [self.vectors[self.offsets[i] : self.offsets[i + 1]] for i in chosen]
        inputs, mask = pad(rows, 0.0)
        entered = None if self.entered is None else self.entered[chosen]
        labels = torch.from_numpy(self.labels[chosen])
        return Batch(inputs, mask, labels, chosen, entered=entered)

    def logits(self, network: Network, batch: Batch) -> Tensor:
        """Suffix only."""
        logits: Tensor = network.suffix(batch.inputs, batch.mask, batch.entered)
        return logits

    def ready(self, indices: Ints) -> None:
        """Compute the vectors that are missing of these rows."""
        if self.store is not None:
            self.store.ready(indices)

    def drawn(self, stream: Stream) -> PrefixExamples:
        """Nothing is drawn."""
        return self

    def release(self) -> None:
        """Unload what the store has mapped."""
        if self.store is not None:
            self.store.release()


Layout = dict[str, tuple[type[np.generic], tuple[int, ...]]]


def _layout(rows: TokenExamples, network: Network, device: Device) -> Layout:
    """Type and shape of what a store's file holds, one after the other."""
    hidden = network.suffix.config.hidden_size
    bits = np.int16 if device.dtype == torch.bfloat16 else np.float32
    entered: Layout = {"entered": (np.float32, (len(rows), hidden))} if network.attends else {}
    vectors = (bits, (int(rows.offsets[-1]), hidden))
    return {"sums": (np.uint32, (len(rows),)), **entered, "vectors": vectors}


def _cut(content: npt.NDArray[np.uint8], layout: Layout) -> dict[str, npt.NDArray[Any]]:
    """The arrays in a file's content."""
    found: dict[str, npt.NDArray[Any]] = {}
    start = 0
    for name, (dtype, shape) in layout.items():
        end = start + _size(dtype, shape)
        found[name] = content[start:end].view(dtype).reshape(shape)
        start = end
    return found


def _size(dtype: type[np.generic], shape: tuple[int, ...]) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize


def _reserve(path: Path, size: int) -> None:
    """A file of `size` bytes, all 0.

    Raises OSError when the disk has no room: a mapped page that cannot be written ends a process.
    """
    with path.open("wb") as file:
        file.truncate(size)
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except (AttributeError, OSError) as error:
            # Some file systems reserve nothing, nor does macOS.
            if getattr(error, "errno", errno.EINVAL) not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise


def with_prefix(
    rows: TokenExamples, rows_key: str, network: Network, device: Device, cache: Path
) -> PrefixExamples:
    """`rows` with their frozen prefix, computed when first read and memory-mapped from `cache`.

    Exact: the frozen layers have no dropout, and the vectors are stored in the dtype in which the
    suffix would have received them (bf16 under autocast, else float32).
    """
    key = sha256_text(
        "prefix",
        str(VERSION),
        rows_key,
        network.prefix_fingerprint,
        str(network.prefix_depth),
        str(device.dtype),
        device.device.type,
        # Kernels that round otherwise make other vectors.
        *(["tf32"] if device.tf32 else []),
        *(["compiled"] if device.compiled else []),
    )
    # An empty file cannot be mapped.
    size = max(1, sum(_size(*kind) for kind in _layout(rows, network, device).values()))
    folder = built_once(
        private_directory(cache) / f"prefix-{key[:32]}",
        lambda path: _reserve(path / FILE, size),
    )
    store = Store(folder / FILE, rows, network, device)
    stored = torch.from_numpy(store.vectors)
    vectors = stored.view(torch.bfloat16) if device.dtype == torch.bfloat16 else stored
    entered = None if store.entered is None else torch.from_numpy(store.entered)
    return PrefixExamples(vectors, rows.offsets, rows.labels, entered, store)


def prepare(
    texts: Sequence[str],
    labels: npt.NDArray[Any],
    network: Network,
    config: ModelConfig,
    device: Device,
    cache: Path,
) -> Examples:
    """Rows for training or evaluation: prefix vectors where a prefix is frozen, else token ids."""
    rows, key = tokenize(texts, labels, network, config, cache)
    if config.prefix_cache and network.frozen_layers > 0:
        return with_prefix(rows, key, network, device, cache)
    return rows
