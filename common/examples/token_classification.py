"""Tagged records: long ones in overlapping windows, with a class for each word.

A record (a sentence or document: the unit that privacy protects) is cut into sub-tokens.  One that
is longer than the model's input becomes several windows, which overlap by `model.stride`.  A word's
class is at its first sub-token, in the one window that shows most of its context; every other
position is `IGNORED`.  All windows of a record pass the model together, so that its gradient can be
clipped as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from common.config import ModelConfig
from common.data.table import WORD_BREAK, Table, cuts
from common.device import Device
from common.examples.batch import Batch, Ints
from common.examples.frozen_layers import FrozenLayerExamples, with_frozen_layers
from common.examples.tokens import TokenExamples, load_array, tokenizer_identity
from common.files import built_once, private_directory, sha256_text
from common.losses import IGNORED
from common.models.network import Network
from common.randomness import Stream

# Special sub-tokens of a window: [CLS] and [SEP].
SPECIAL = 2


@dataclass(frozen=True)
class WordExamples:
    """n tagged records.

    Attributes:
        inner: The windows of all records.
        windows: Bounds of the records in `inner`, [n + 1].
        words: For every stored sub-token, the word of its record whose class it carries, or -1.
        codes: The classes of all words.
        offsets: Bounds of the records in `codes`, [n + 1].
    """

    inner: TokenExamples | FrozenLayerExamples
    windows: Ints
    words: npt.NDArray[np.int32]
    codes: Ints
    offsets: Ints

    @property
    def lengths(self) -> Ints:
        """Sub-tokens of each record, [n]."""
        return np.diff(self.inner.offsets[self.windows])

    def __len__(self) -> int:
        return len(self.windows) - 1

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        chosen = np.asarray(indices, dtype=np.int64)
        flat = self._windows_of(chosen)
        batch = self.inner.__getitems__(flat.tolist())
        owners = np.repeat(np.arange(len(chosen)), np.diff(self.windows)[chosen])
        labels = torch.full(batch.mask.shape, IGNORED, dtype=torch.long)
        for place, (window, owner) in enumerate(zip(flat, owners, strict=True)):
            words = self.words_of(int(window))
            at = np.flatnonzero(words >= 0)
            codes = self.codes[self.offsets[chosen[owner]] + words[at]]
            labels[place, torch.from_numpy(at)] = torch.from_numpy(codes)
        owner_of = torch.from_numpy(owners)
        return replace(batch, labels=labels, indices=chosen, owner=owner_of)

    def words_of(self, window: int) -> npt.NDArray[np.int32]:
        """The word whose class each sub-token of a window carries, or -1."""
        return self.words[self.inner.offsets[window] : self.inner.offsets[window + 1]]

    def predicted(self, batch: Batch, logits: Tensor) -> list[Ints]:
        """The class of every word of a batch's records from `logits` [windows, tokens, classes].

        A word that the tokenizer removes (a control character) gets class 0, outside.
        """
        best = logits.argmax(-1).numpy()
        found = [np.zeros(self.offsets[i + 1] - self.offsets[i], np.int64) for i in batch.indices]
        place = 0
        for row, index in enumerate(batch.indices):
            for window in range(int(self.windows[index]), int(self.windows[index + 1])):
                words = self.words_of(window)
                at = np.flatnonzero(words >= 0)
                found[row][words[at]] = best[place, at]
                place += 1
        return found

    def logits(self, network: Network, batch: Batch) -> Tensor:
        """Logits [windows, tokens, classes]."""
        return self.inner.logits(network, batch)

    def ready(self, indices: Ints) -> None:
        """Make the windows of these records ready."""
        self.inner.ready(self._windows_of(indices))

    def _windows_of(self, rows: Ints) -> Ints:
        held = [np.arange(self.windows[i], self.windows[i + 1]) for i in rows]
        return np.concatenate([np.zeros(0, np.int64), *held])

    def drawn(self, stream: Stream) -> WordExamples:
        """The same: nothing of them is random."""
        return self

    def release(self) -> None:
        """Unload the pages of `inner`."""
        self.inner.release()


def window_starts(tokens: int, size: int, stride: int) -> list[int]:
    """Starts of windows of `size` that overlap by `stride` and cover `tokens` sub-tokens."""
    starts = [0]
    while starts[-1] + size < tokens:
        starts.append(starts[-1] + size - stride)
    return starts


def _save(
    directory: Path, tokenizer: PreTrainedTokenizerBase, rows: Sequence[str], config: ModelConfig
) -> None:
    size = config.max_length - SPECIAL
    begin, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    ids, words, lengths, counts = [], [], [], []
    for text in rows:
        encoded = tokenizer(
            text.split(WORD_BREAK), is_split_into_words=True, add_special_tokens=False
        )
        tokens = np.asarray(encoded["input_ids"], dtype=np.int32)
        of = [-1 if w is None else w for w in encoded.word_ids(0)]
        first = np.array(
            [w if place == 0 or of[place - 1] != w else -1 for place, w in enumerate(of)],
            dtype=np.int32,
        )
        starts = window_starts(len(tokens), size, config.stride)
        for number, start in enumerate(starts):
            stop = min(start + size, len(tokens))
            # Each window takes its half of an overlap.
            low = start if number == 0 else start + config.stride // 2
            high = stop if number == len(starts) - 1 else starts[number + 1] + config.stride // 2
            shown = np.full(stop - start, -1, dtype=np.int32)
            shown[low - start : high - start] = first[low:high]
            ids.append(np.concatenate([[begin], tokens[start:stop], [end]]).astype(np.int32))
            words.append(np.concatenate([[-1], shown, [-1]]).astype(np.int32))
            lengths.append(len(ids[-1]))
        counts.append(len(starts))
    none = np.zeros(0, dtype=np.int32)
    np.save(directory / "ids.npy", np.concatenate([none, *ids]))
    np.save(directory / "words.npy", np.concatenate([none, *words]))
    np.save(directory / "offsets.npy", cuts(lengths))
    np.save(directory / "windows.npy", cuts(counts))


def prepare_words(
    rows: Table, network: Network, config: ModelConfig, device: Device, cache: Path
) -> WordExamples:
    """Tagged records as windows, read from `cache` where it has them."""
    assert rows.tags is not None
    private_directory(cache)
    key = sha256_text("words", tokenizer_identity(config), str(config.stride), *rows.texts)
    folder = built_once(
        cache / f"words-{key[:32]}",
        lambda path: _save(path, network.tokenizer, rows.texts, config),
    )
    offsets = np.load(folder / "offsets.npy")
    pad = network.tokenizer.pad_token_id
    inner: TokenExamples | FrozenLayerExamples = TokenExamples(
        load_array(folder / "ids.npy"),
        offsets,
        np.zeros(len(offsets) - 1, dtype=np.int64),
        0 if pad is None else int(pad),
    )
    if config.prefix_cache and network.frozen_layers > 0:
        assert isinstance(inner, TokenExamples)
        inner = with_frozen_layers(inner, key, network, device, cache)
    return WordExamples(
        inner,
        np.load(folder / "windows.npy"),
        load_array(folder / "words.npy"),
        rows.tags.codes,
        rows.tags.offsets,
    )
