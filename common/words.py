"""Tagged rows ready for the model: long ones in overlapping windows, a class for each word.

A row (one sentence or document: the unit that privacy protects) is cut into sub-tokens; where these
are more than the model takes, into windows that overlap by `model.stride`.  A word's class stands
at its first sub-token, in the one window that shows most of what is around it; every other place is
`IGNORED`.  All windows of a row go through the model together, so that its gradient can be clipped
as one.
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
from common.features import (
    Batch,
    Examples,
    Ints,
    TokenExamples,
    load_array,
    tokenizer_identity,
)
from common.files import built_once, private_directory, sha256_text
from common.losses import IGNORED
from common.masked import prepare_masked
from common.model import Network
from common.prefix import PrefixExamples, prepare, with_prefix
from common.randomness import Stream

# Sub-tokens that a window holds beside the text: [CLS] and [SEP].
SPECIAL = 2


@dataclass(frozen=True)
class WordExamples:
    """n tagged rows over the windows of `inner`.

    `windows` [n + 1] cuts the windows into rows; `words` says for every stored sub-token which word
    of its row it stands for, -1 for none; `codes` are the rows' classes, cut by `offsets` [n + 1].
    """

    inner: TokenExamples | PrefixExamples
    windows: Ints
    words: npt.NDArray[np.int32]
    codes: Ints
    offsets: Ints

    @property
    def lengths(self) -> Ints:
        """Sub-tokens per row."""
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
        """Which word each sub-token of a window stands for."""
        return self.words[self.inner.offsets[window] : self.inner.offsets[window + 1]]

    def predicted(self, batch: Batch, logits: Tensor) -> list[Ints]:
        """The class of every word of a batch's rows from `logits` [windows, tokens, classes].

        A word of which the tokenizer leaves nothing (a control character) is outside.
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
        """As of the windows of these rows."""
        self.inner.ready(self._windows_of(indices))

    def _windows_of(self, rows: Ints) -> Ints:
        held = [np.arange(self.windows[i], self.windows[i + 1]) for i in rows]
        return np.concatenate([np.zeros(0, np.int64), *held])

    def drawn(self, stream: Stream) -> WordExamples:
        """Nothing is drawn."""
        return self

    def release(self) -> None:
        """Unload what `inner` has mapped."""
        self.inner.release()


def window_starts(tokens: int, size: int, stride: int) -> list[int]:
    """Where windows of `size` that overlap by `stride` begin, so that they cover `tokens`."""
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
            # Half of an overlap belongs to each side.
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
    """The windows of tagged rows, from the cache when these texts were seen before."""
    assert rows.tags is not None
    private_directory(cache)
    key = sha256_text("words", tokenizer_identity(config), str(config.stride), *rows.texts)
    folder = built_once(
        cache / f"words-{key[:32]}",
        lambda path: _save(path, network.tokenizer, rows.texts, config),
    )
    offsets = np.load(folder / "offsets.npy")
    pad = network.tokenizer.pad_token_id
    inner: TokenExamples | PrefixExamples = TokenExamples(
        load_array(folder / "ids.npy"),
        offsets,
        np.zeros(len(offsets) - 1, dtype=np.int64),
        0 if pad is None else int(pad),
    )
    if config.prefix_cache and network.frozen_layers > 0:
        assert isinstance(inner, TokenExamples)
        inner = with_prefix(inner, key, network, device, cache)
    return WordExamples(
        inner,
        np.load(folder / "windows.npy"),
        load_array(folder / "words.npy"),
        rows.tags.codes,
        rows.tags.offsets,
    )


def prepare_table(
    rows: Table, network: Network, config: ModelConfig, device: Device, cache: Path
) -> Examples:
    """The rows of a table for training or evaluation, whatever their targets are."""
    if rows.tags is not None:
        return prepare_words(rows, network, config, device, cache)
    if config.head == "lm":
        return prepare_masked(rows, network, config, cache)
    targets = rows.labels if rows.targets is None else rows.targets
    return prepare(rows.texts, targets, network, config, device, cache)
