"""From text to what the trained layers read: token ids, then (cached) prefix vectors.

Both are stored ragged (no padding) in content-addressed folders that only this user may read, and
are memory-mapped, so that the next message, the next process and the next run start at once.
Rows are padded only when a batch is made, to the longest row of that batch.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from common.config import ModelConfig
from common.device import Device, keep_memory
from common.files import built_once, private_directory, sha256_text
from common.model import Network, locate

Ints = npt.NDArray[np.int64]
# Rows whose prefix is computed at a time are chosen by tokens, not rows: bounded memory.
PREFIX_TOKENS = 2048
PAD_TO = 8
# Larger arrays are mapped.  A worker keeps a few of these for each of its open partners.
READ_BYTES = 1 << 18


@dataclass(frozen=True)
class Batch:
    """n rows: `inputs` is token ids [n, t] or vectors [n, t, h]; `mask` [n, t]; `labels` [n],
    or [n, k] where a row's target is not one label.

    Of tagged rows there are w >= n windows in the place of n, `labels` is [w, t], and `owner` [w]
    says which of the n rows a window is part of.  Where vectors have passed an attention already,
    `entered` [n, h] are the means of those that entered it.
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
    """Rows ready for the model; a map-style dataset whose items come a batch at a time."""

    @property
    def lengths(self) -> Ints:
        """Tokens per row, [n]."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Batch: ...

    def __getitems__(self, indices: Sequence[int]) -> Batch: ...

    def logits(self, network: Network, batch: Batch) -> Tensor:
        """Run the part of the network that these rows still need."""

    def drawn(self, generator: torch.Generator) -> Examples:
        """These rows for one message's training: where something of them is drawn, drawn anew."""

    def release(self) -> None:
        """Give back the memory of pages that were read; the next reading maps them again."""


def _pad(rows: Sequence[Tensor], fill: float) -> tuple[Tensor, Tensor]:
    """Stack rows [t_i, ...] into [n, t, ...] and their mask [n, t]."""
    longest = max((len(row) for row in rows), default=1)
    width = -(-longest // PAD_TO) * PAD_TO
    shape = (len(rows), width, *rows[0].shape[1:])
    stacked = torch.full(shape, fill, dtype=rows[0].dtype)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        stacked[i, : len(row)] = row
        mask[i, : len(row)] = 1
    return stacked, mask


@dataclass(frozen=True)
class TokenExamples:
    """Rows as token ids; `ids` is the concatenation and `offsets` [n + 1] its cuts."""

    ids: npt.NDArray[np.int32]
    offsets: Ints
    labels: npt.NDArray[Any]
    pad_id: int

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
            empty = torch.zeros((0, PAD_TO), dtype=torch.long)
            return Batch(empty, empty, empty[:, 0], chosen)
        rows = [
            torch.from_numpy(self.ids[self.offsets[i] : self.offsets[i + 1]].astype(np.int64))
            for i in chosen
        ]
        inputs, mask = _pad(rows, self.pad_id)
        return Batch(inputs, mask, torch.from_numpy(self.labels[chosen]), chosen)

    def logits(self, network: Network, batch: Batch) -> Tensor:
        """Prefix, then suffix."""
        return network.logits(batch.inputs, batch.mask)

    def drawn(self, generator: torch.Generator) -> TokenExamples:
        """Nothing is drawn."""
        return self

    def release(self) -> None:
        """Token ids are small: they stay."""


@dataclass(frozen=True)
class PrefixExamples:
    """Rows as prefix vectors, [total tokens, hidden], cut by `offsets` [n + 1].

    `entered` [n, hidden] as in `Batch`.  `vectors` is a view of `file`, the memory map that they
    are read from, if they come from one.
    """

    vectors: Tensor
    offsets: Ints
    labels: npt.NDArray[Any]
    entered: Tensor | None = None
    file: mmap.mmap | None = None

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
        rows = [self.vectors[self.offsets[i] : self.offsets[i + 1]] for i in chosen]
        inputs, mask = _pad(rows, 0.0)
        entered = None if self.entered is None else self.entered[chosen]
        labels = torch.from_numpy(self.labels[chosen])
        return Batch(inputs, mask, labels, chosen, entered=entered)

    def logits(self, network: Network, batch: Batch) -> Tensor:
        """Suffix only."""
        logits: Tensor = network.suffix(batch.inputs, batch.mask, batch.entered)
        return logits

    def drawn(self, generator: torch.Generator) -> PrefixExamples:
        """Nothing is drawn."""
        return self

    def release(self) -> None:
        """Unload the pages: a worker that serves many partners would hold all of their vectors."""
        if self.file is not None and hasattr(mmap, "MADV_DONTNEED"):
            self.file.madvise(mmap.MADV_DONTNEED)


def tokenizer_identity(config: ModelConfig) -> str:
    """What the token ids depend on besides the text."""
    place = Path(locate(config.base))
    files = sorted(place.glob("*token*")) + sorted(place.glob("vocab*")) if place.is_dir() else []
    stamps = tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files)
    return sha256_text(
        *(config.base, config.revision or "", str(config.max_length), config.truncation),
        *_contents(stamps),
    )


@lru_cache(maxsize=4)
def _contents(stamps: tuple[tuple[Path, int, int], ...]) -> tuple[bytes, ...]:
    """The bytes of files as they were at a size and a time; read once for all partners."""
    return tuple(file.read_bytes() for file, _, _ in stamps)


def _save_ids(directory: Path, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> None:
    encoded: Any = []
    if len(texts):
        encoded = tokenizer(
            list(texts), truncation=True, return_attention_mask=False, return_token_type_ids=False
        )["input_ids"]
    offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in encoded], out=offsets[1:])
    rows = [np.zeros(0, dtype=np.int32), *(np.asarray(row, dtype=np.int32) for row in encoded)]
    np.save(directory / "ids.npy", np.concatenate(rows))
    np.save(directory / "offsets.npy", offsets)


def load_array(path: Path, mode: Literal["r", "c"]) -> npt.NDArray[Any]:
    """A stored array: a large one mapped in `mode`, a small one read, which is faster."""
    loaded: npt.NDArray[Any] = np.load(
        path, mmap_mode=mode if path.stat().st_size > READ_BYTES else None
    )
    return loaded


def tokenize(
    texts: Sequence[str],
    labels: npt.NDArray[Any],
    network: Network,
    config: ModelConfig,
    cache: Path,
) -> tuple[TokenExamples, str]:
    """Token ids of `texts`, from the cache when these texts were seen before, and their key."""
    private_directory(cache)
    key = sha256_text("ids", tokenizer_identity(config), *texts)
    folder = built_once(
        cache / f"ids-{key[:32]}", lambda path: _save_ids(path, network.tokenizer, texts)
    )
    pad = network.tokenizer.pad_token_id
    return (
        TokenExamples(
            load_array(folder / "ids.npy", "r"),
            np.load(folder / "offsets.npy"),
            np.asarray(labels),
            0 if pad is None else int(pad),
        ),
        key,
    )


def by_length(lengths: Ints, max_tokens: int) -> Iterator[Ints]:
    """Batches of row indices of similar length, each of at most `max_tokens` padded tokens."""
    order = np.argsort(lengths, kind="stable")[::-1]
    start = 0
    while start < len(order):
        longest = max(int(lengths[order[start]]), 1)
        count = max(1, max_tokens // (-(-longest // PAD_TO) * PAD_TO))
        yield order[start : start + count]
        start += count


def _save_vectors(directory: Path, rows: TokenExamples, network: Network, device: Device) -> None:
    hidden_size = network.suffix.config.hidden_size
    bits = np.int16 if device.dtype == torch.bfloat16 else np.float32
    store = np.lib.format.open_memmap(
        directory / "vectors.npy",
        mode="w+",
        dtype=bits,
        shape=(int(rows.offsets[-1]), hidden_size),
    )
    means = np.zeros((len(rows), hidden_size), dtype=np.float32)
    keep_memory()
    prefix = device.prefix_of(network.prefix)
    for chosen in by_length(rows.lengths, PREFIX_TOKENS):
        batch = rows.__getitems__(chosen.tolist()).to(device)
        with torch.inference_mode(), device.autocast(), device.products():
            hidden, entered = prefix(batch.inputs, batch.mask)
        if entered is not None:
            means[chosen] = entered.cpu().numpy()
        hidden = hidden.to(device.dtype).cpu()
        flat = hidden.view(torch.int16) if bits == np.int16 else hidden
        for i, row in zip(chosen, flat, strict=True):
            begin, end = int(rows.offsets[i]), int(rows.offsets[i + 1])
            store[begin:end] = row[: end - begin].numpy()
    store.flush()
    if network.attends:
        np.save(directory / "entered.npy", means)
    (directory / "dtype.json").write_text(json.dumps({"bf16": bits == np.int16}))


def with_prefix(
    rows: TokenExamples, rows_key: str, network: Network, device: Device, cache: Path
) -> PrefixExamples:
    """`rows` with their frozen prefix computed once and memory-mapped from `cache`.

    Exact: the frozen layers have no dropout, and the vectors are stored in the dtype in which the
    suffix would have received them (bf16 under autocast, else float32).
    """
    key = sha256_text(
        "prefix",
        rows_key,
        network.prefix_fingerprint,
        str(network.prefix_depth),
        str(device.dtype),
        device.device.type,
        # Kernels that round otherwise make other vectors.
        *(["tf32"] if device.tf32 else []),
        *(["compiled"] if device.compiled else []),
    )
    folder = built_once(
        private_directory(cache) / f"prefix-{key[:32]}",
        lambda path: _save_vectors(path, rows, network, device),
    )
    # mode "c": pages are private copies-on-write, which torch asks for and nothing here writes.
    mapped = load_array(folder / "vectors.npy", "c")
    stored = torch.from_numpy(mapped)
    vectors = stored.view(torch.bfloat16) if stored.dtype == torch.int16 else stored
    entered = torch.from_numpy(np.load(folder / "entered.npy")) if network.attends else None
    file = getattr(mapped, "_mmap", None)
    return PrefixExamples(vectors, rows.offsets, rows.labels, entered, file)


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
