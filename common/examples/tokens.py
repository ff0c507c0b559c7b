"""From text to token ids.

Token ids, like the vectors of `common.examples.frozen_layers`, are stored ragged (without padding)
in content-addressed folders that only this user may read, and are memory-mapped, so that the next
message, process and run start at once.  A batch is padded to its longest example.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from common.config import ModelConfig
from common.examples.batch import PAD_TO, Batch, Ints, pad
from common.files import built_once, private_directory, sha256_text
from common.models.loading import locate
from common.models.network import Network
from common.randomness import Stream

# Larger arrays are mapped.  A worker keeps a few of these for each of its open partners.
READ_BYTES = 1 << 18


@dataclass(frozen=True)
class TokenExamples:
    """Examples as token ids; `ids` is their concatenation and `offsets` [n + 1] their bounds."""

    ids: npt.NDArray[np.int32]
    offsets: Ints
    labels: npt.NDArray[Any]
    pad_id: int

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
            empty = torch.zeros((0, PAD_TO), dtype=torch.long)
            return Batch(empty, empty, empty[:, 0], chosen)
        rows = [
            torch.from_numpy(self.ids[self.offsets[i] : self.offsets[i + 1]].astype(np.int64))
            for i in chosen
        ]
        inputs, mask = pad(rows, self.pad_id)
        return Batch(inputs, mask, torch.from_numpy(self.labels[chosen]), chosen)

    def logits(self, network: Network, batch: Batch) -> Tensor:
        """Frozen, then trained layers."""
        return network.logits(batch.inputs, batch.mask)

    def ready(self, indices: Ints) -> None:
        """Nothing to do."""

    def drawn(self, stream: Stream) -> TokenExamples:
        """The same: nothing of them is random."""
        return self

    def release(self) -> None:
        """Token ids are small: they stay."""


def tokenizer_identity(config: ModelConfig) -> str:
    """A hash of all that token ids depend on besides the text."""
    place = Path(locate(config.base))
    files = sorted(place.glob("*token*")) + sorted(place.glob("vocab*")) if place.is_dir() else []
    stamps = tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files)
    return sha256_text(
        *(config.base, config.revision or "", str(config.max_length), config.truncation),
        *_contents(stamps),
    )


@lru_cache(maxsize=4)
def _contents(stamps: tuple[tuple[Path, int, int], ...]) -> tuple[bytes, ...]:
    """The bytes of files, given with size and time of change; read once for all partners."""
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
    """A stored array: mapped if it is large; otherwise read, which is faster."""
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
    """Token ids of `texts`, read from `cache` where it has them, and their key there."""
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
