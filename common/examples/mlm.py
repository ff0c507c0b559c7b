"""Masked texts, for a model that learns to fill in hidden words.

Of a text's sub-tokens (without special ones) 15 %, and at least one, are to be predicted.  Of these
80 % are replaced by the mask, 10 % by a random sub-token, and 10 % are left as they are (BERT;
Devlin et al. 2019, section 3.1).  The choice depends on a random number and on the text alone,
never on other texts.  So the gradient of a text stays a function of that text, as the sensitivity
argument of training requires.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from common.config import ModelConfig
from common.data.table import Table
from common.errors import UserError
from common.examples.batch import Batch, Ints
from common.examples.tokens import TokenExamples, tokenize
from common.losses import IGNORED
from common.models.heads import PREDICTED
from common.models.network import Network
from common.randomness import Stream

SHARE = 0.15
MASKED, RANDOM = 0.8, 0.1


@dataclass(frozen=True)
class MaskedExamples:
    """n texts as token ids, with a random part of them hidden.

    In a batch, `mask` is `PREDICTED` at the positions that are to be predicted.  `labels` [n, k]
    are the original sub-tokens there, in order; texts with fewer than k have `IGNORED` behind.

    Attributes:
        inner: The texts as token ids.
        special: Ids of the special sub-tokens, which are never hidden.
        mask_id: Id of the mask.
        vocabulary: Size of the vocabulary.
        draw: The random number that decides which sub-tokens are hidden.
    """

    inner: TokenExamples
    special: npt.NDArray[np.int64]
    mask_id: int
    vocabulary: int
    draw: int = 0

    @property
    def lengths(self) -> Ints:
        """Sub-tokens of each text, [n]."""
        return self.inner.lengths

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        batch = self.inner.__getitems__(indices)
        inputs, mask = batch.inputs.clone(), batch.mask.clone()
        originals = []
        for row, length in enumerate(mask.sum(1).tolist()):
            ids = inputs[row, :length].numpy()
            places = self._places(ids)
            originals.append(torch.from_numpy(ids[places].copy()))
            self._hide(ids, places)
            mask[row, torch.from_numpy(places)] = PREDICTED
        width = max((len(row) for row in originals), default=1)
        labels = torch.full((len(originals), width), IGNORED, dtype=torch.long)
        for row, original in enumerate(originals):
            labels[row, : len(original)] = original
        return Batch(inputs, mask, labels, batch.indices)

    def _random(self, ids: Ints, purpose: int) -> np.random.Generator:
        digest = blake2b(np.ascontiguousarray(ids).tobytes(), digest_size=8).digest()
        return np.random.default_rng([self.draw, purpose, int.from_bytes(digest, "little")])

    def _places(self, ids: Ints) -> Ints:
        """Positions of the sub-tokens to predict, in order; none in a text without sub-tokens."""
        usual = np.flatnonzero(~np.isin(ids, self.special))
        count = min(len(usual), max(1, round(SHARE * len(usual))))
        return np.sort(self._random(ids, 0).choice(usual, count, replace=False))

    def _hide(self, ids: Ints, places: Ints) -> None:
        """Mask, replace or keep the sub-tokens at `places`, changing `ids`."""
        random = self._random(ids, 1)
        chance = random.random(len(places))
        ids[places[chance < MASKED]] = self.mask_id
        other = places[(chance >= MASKED) & (chance < MASKED + RANDOM)]
        ids[other] = random.integers(0, self.vocabulary, len(other))

    def logits(self, network: Network, batch: Batch) -> Tensor:
        """Logits [n, k, vocabulary] at the positions to predict."""
        return self.inner.logits(network, batch)

    def ready(self, indices: Ints) -> None:
        """Nothing to do: no vectors of these texts are cached."""

    def drawn(self, stream: Stream) -> MaskedExamples:
        """The same texts with other sub-tokens hidden."""
        return replace(self, draw=stream.integer())

    def release(self) -> None:
        """Unload the pages of `inner`."""
        self.inner.release()


def prepare_masked(
    rows: Table, network: Network, config: ModelConfig, cache: Path
) -> MaskedExamples:
    """The texts of a table, tokenised once.

    Raises:
        UserError: The tokenizer has no mask token.
    """
    tokenizer = network.tokenizer
    if tokenizer.mask_token_id is None:
        raise UserError(
            f"model.base: the tokenizer of '{config.base}' has no mask token, which task=mlm "
            "needs; choose another model"
        )
    tokens, _ = tokenize(rows.texts, rows.labels, network, config, cache)
    special = np.array(sorted(tokenizer.all_special_ids), dtype=np.int64)
    return MaskedExamples(tokens, special, int(tokenizer.mask_token_id), len(tokenizer))
