"""Examples as the vectors that the frozen layers compute from their tokens, cached on disk.

The vectors of an example are computed once, when a batch first draws it: a run may draw far fewer
examples than there are.
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

from common.device import Device, keep_memory
from common.examples.batch import PAD_TO, Batch, Ints, by_length, pad
from common.examples.tokens import TokenExamples
from common.files import built_once, private_directory, sha256_text
from common.models.network import Network
from common.randomness import Stream

# Tokens that pass the frozen layers together: a bound on memory, whatever the examples' lengths.
BATCH_TOKENS = 2048
FILE = "vectors.bin"
# Of the file's layout; raise it when that changes.
VERSION = 2


class Store:
    """A file with room for the vectors [tokens, hidden] of every example, filled as they are drawn.

    An example's vectors count as computed when they agree with its checksum, which is written after
    them.  So a process that dies in between, or a loss of power before the disk has all pages,
    costs no more than computing them again.  The same holds for two processes that fill one file at
    once: both write the same values up to rounding, which can depend on the other examples of a
    batch.  Checksums show which examples were drawn.  They are as secret as the examples, and are
    kept in the same private folder.
    """

    def __init__(self, path: Path, rows: TokenExamples, network: Network, device: Device) -> None:
        self.rows, self.network, self.device = rows, network, device
        mapped = np.memmap(path, np.uint8, "r+")
        self.file: mmap.mmap = mapped._mmap  # type: ignore[attr-defined]
        arrays = _cut(np.asarray(mapped), _layout(rows, network, device))
        self.checksums, self.vectors = arrays["checksums"], arrays["vectors"]
        self.entered = arrays.get("entered")
        self.whole = np.zeros(len(rows), dtype=np.bool_)

    def ready(self, indices: Ints) -> None:
        """Compute those vectors of these examples that are not in the file."""
        unread = np.unique(indices[~self.whole[indices]])
        if len(unread) == 0:
            return
        agrees = [
            self.checksums[row] != 0 and self.checksums[row] == self._checksum(row)
            for row in unread
        ]
        missing = unread[~np.array(agrees)]
        if len(missing) > 0:
            keep_memory()
            run = self.device.compile_if_asked(self.network.run_frozen)
            for places in by_length(self.rows.lengths[missing], BATCH_TOKENS):
                self._compute(missing[places], run)
        self.whole[unread] = True

    def _compute(
        self, chosen: Ints, run: Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]
    ) -> None:
        batch = self.rows.__getitems__(chosen.tolist()).to(self.device)
        with torch.inference_mode(), self.device.autocast(), self.device.products():
            hidden, entered = run(batch.inputs, batch.mask)
        if self.entered is not None:
            assert entered is not None
            self.entered[chosen] = entered.cpu().numpy()
        hidden = hidden.to(self.device.dtype).cpu()
        flat = hidden.view(torch.int16) if hidden.dtype == torch.bfloat16 else hidden
        for row, vectors in zip(chosen, flat, strict=True):
            tokens = self._tokens_of(row)
            self.vectors[tokens] = vectors[: tokens.stop - tokens.start].numpy()
            self.checksums[row] = self._checksum(row)

    def _tokens_of(self, row: int) -> slice:
        return slice(int(self.rows.offsets[row]), int(self.rows.offsets[row + 1]))

    def _checksum(self, row: int) -> int:
        """CRC-32 of an example's vectors; never 0, which is what a new file has."""
        checksum = zlib.crc32(self.vectors[self._tokens_of(row)].data)
        if self.entered is not None:
            checksum = zlib.crc32(self.entered[row].data, checksum)
        return checksum or 1

    def release(self) -> None:
        """Unload the pages; otherwise a worker would hold the vectors of all of its partners."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self.file.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True)
class FrozenLayerExamples:
    """Examples as the vectors that enter the trained layers.

    Attributes:
        vectors: All vectors, [tokens, hidden].
        offsets: Bounds of the examples in `vectors`, [n + 1].
        labels: As in `Batch`, of all examples.
        entered: As in `Batch`, [n, hidden].
        store: The file that holds `vectors` and `entered`, if any; it computes missing ones.
    """

    vectors: Tensor
    offsets: Ints
    labels: npt.NDArray[Any]
    entered: Tensor | None = None
    store: Store | None = None

    @property
    def lengths(self) -> Ints:
        """Tokens of each example, [n]."""
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
        """The trained layers alone."""
        logits: Tensor = network.trained(batch.inputs, batch.mask, batch.entered)
        return logits

    def ready(self, indices: Ints) -> None:
        """Compute missing vectors of these examples."""
        if self.store is not None:
            self.store.ready(indices)

    def drawn(self, stream: Stream) -> FrozenLayerExamples:
        """The same: nothing of them is random."""
        return self

    def release(self) -> None:
        """Unload the pages of the store."""
        if self.store is not None:
            self.store.release()


Layout = dict[str, tuple[type[np.generic], tuple[int, ...]]]


def _layout(rows: TokenExamples, network: Network, device: Device) -> Layout:
    """Type and shape of the arrays in a store's file, in order."""
    hidden = network.trained.config.hidden_size
    bits = np.int16 if device.dtype == torch.bfloat16 else np.float32
    entered: Layout = (
        {"entered": (np.float32, (len(rows), hidden))} if network.freezes_attention else {}
    )
    vectors = (bits, (int(rows.offsets[-1]), hidden))
    return {"checksums": (np.uint32, (len(rows),)), **entered, "vectors": vectors}


def _cut(content: npt.NDArray[np.uint8], layout: Layout) -> dict[str, npt.NDArray[Any]]:
    """Views of the arrays in a file's content."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    start = 0
    for name, (dtype, shape) in layout.items():
        end = start + _size(dtype, shape)
        arrays[name] = content[start:end].view(dtype).reshape(shape)
        start = end
    return arrays


def _size(dtype: type[np.generic], shape: tuple[int, ...]) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize


def _reserve(path: Path, size: int) -> None:
    """Make a file of `size` zero bytes.

    Raises:
        OSError: The disk has no room.  Found out later, a page that cannot be written would kill
            the process.
    """
    with path.open("wb") as file:
        file.truncate(size)
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except (AttributeError, OSError) as error:
            # Some file systems cannot reserve space, and macOS has no such call.
            if getattr(error, "errno", errno.EINVAL) not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise


def with_frozen_layers(
    rows: TokenExamples, rows_key: str, network: Network, device: Device, cache: Path
) -> FrozenLayerExamples:
    """`rows` as the output of the frozen layers, computed when first read and cached in `cache`.

    Exact: the frozen layers have no dropout, and the vectors are stored in the dtype in which the
    trained layers would have received them (bf16 under autocast, else float32).

    Args:
        rows: The examples as token ids.
        rows_key: A hash of their token ids.
        network: The network with the frozen layers.
        device: Where they are computed, and in which precision.
        cache: A folder of the user's own.
    """
    key = sha256_text(
        "prefix",
        str(VERSION),
        rows_key,
        network.frozen_fingerprint,
        str(network.frozen_depth),
        str(device.dtype),
        device.device.type,
        # Other kernels round differently.
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
    return FrozenLayerExamples(vectors, rows.offsets, rows.labels, entered, store)
