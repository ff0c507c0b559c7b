"""From text to token ids, and what rows are that a model reads.

Token ids, like the vectors of `common.prefix`, are stored ragged (no padding) in content-addressed
folders that only this user may read, and are memory-mapped, so that the next message, the next
process and the next run start at once.  Rows are padded only when a batch is made, to the longest
row of that batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from common.config import ModelConfig
from common.device import Device
from common.files import built_once, private_directory, sha256_text
from common.model import Network, locate
from common.randomness import Stream

Ints = npt.NDArray[np.int64]
PAD_TO = 8
# What another batch costs beside its tokens is about as much as this many of them.
PADDING = 64
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

    def ready(self, indices: Ints) -> None:
        """Do now, for all of `indices` at once, what reading a row for the first time takes."""

    def drawn(self, stream: Stream) -> Examples:
        """These rows for one message's training: where something of them is drawn, drawn anew."""

    def release(self) -> None:
        """Give back the memory of pages that were read; the next reading maps them again."""


def pad(rows: Sequence[Tensor], fill: float) -> tuple[Tensor, Tensor]:
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
        inputs, mask = pad(rows, self.pad_id)
        return Batch(inputs, mask, torch.from_numpy(self.labels[chosen]), chosen)

    def logits(self, network: Network, batch: Batch) -> Tensor:
        """Prefix, then suffix."""
        return network.logits(batch.inputs, batch.mask)

    def ready(self, indices: Ints) -> None:
        """Nothing is to be done."""

    def drawn(self, stream: Stream) -> TokenExamples:
        """Nothing is drawn."""
        return self

    def release(self) -> None:
        """Token ids are small: they stay."""


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


def load_array(path: Path) -> npt.NDArray[Any]:
    """A stored array: a large one mapped, a small one read, which is faster."""
    loaded: npt.NDArray[Any] = np.load(
        path, mmap_mode="r" if path.stat().st_size > READ_BYTES else None
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
            load_array(folder / "ids.npy"),
            np.load(folder / "offsets.npy"),
            np.asarray(labels),
            0 if pad is None else int(pad),
        ),
        key,
    )


def by_length(lengths: Ints, max_tokens: int) -> Iterator[Ints]:
    """Batches of row indices of similar length, each of at most `max_tokens` padded tokens.

    Rows of other widths than the longest's add no more than PADDING tokens of padding to a batch.
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
