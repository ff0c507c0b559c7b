"""Texts with some of their words hidden, for a model that learns to fill them in.

Of a text's sub-tokens (special ones aside) 15 % are to be predicted, at least one: of these 80 %
are replaced by the mask, 10 % by a random sub-token, and 10 % stay (BERT; Devlin et al. 2019,
section 3.1).  Which ones depends on a draw and on the text alone, never on other rows, so that a
row's gradient stays a function of that row: the sensitivity argument of training holds.
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
from common.features import Batch, Ints, TokenExamples, tokenize
from common.losses import IGNORED
from common.model import PREDICTED, Network
from common.randomness import Stream

SHARE = 0.15
MASKED, RANDOM = 0.8, 0.1


@dataclass(frozen=True)
class MaskedExamples:
    """n texts as token ids, of which `draw` decides what is hidden.

    In a batch `mask` is `PREDICTED` at the k places of a row that are to be predicted; `labels`
    [n, k] has what stood there, in order, and `IGNORED` in rows that have fewer.
    """

    inner: TokenExamples
    special: npt.NDArray[np.int64]
    mask_id: int
    vocabulary: int
    draw: int = 0

    @property
    def lengths(self) -> Ints:
        """Sub-tokens per row."""
        return self.inner.lengths

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        batch = self.inner.__getitems__(indices)
        inputs, mask = batch.inputs.clone(), batch.mask.clone()
        found = []
        for row, length in enumerate(mask.sum(1).tolist()):
            ids = inputs[row, :length].numpy()
            places = self._places(ids)
            found.append(torch.from_numpy(ids[places].copy()))
            self._hide(ids, places)
            mask[row, torch.from_numpy(places)] = PREDICTED
        width = max((len(row) for row in found), default=1)
        labels = torch.full((len(found), width), IGNORED, dtype=torch.long)
        for row, ids_there in enumerate(found):
            labels[row, : len(ids_there)] = ids_there
        return Batch(inputs, mask, labels, batch.indices)

    def _random(self, ids: Ints, purpose: int) -> np.random.Generator:
        digest = blake2b(np.ascontiguousarray(ids).tobytes(), digest_size=8).digest()
        return np.random.default_rng([self.draw, purpose, int.from_bytes(digest, "little")])

    def _places(self, ids: Ints) -> Ints:
        """Where a row's sub-tokens are to be predicted, in order; none in a row without any."""
        usual = np.flatnonzero(~np.isin(ids, self.special))
        count = min(len(usual), max(1, round(SHARE * len(usual))))
        return np.sort(self._random(ids, 0).choice(usual, count, replace=False))

    def _hide(self, ids: Ints, places: Ints) -> None:
        """Replace what stands at `places`, in place."""
        random = self._random(ids, 1)
        chance = random.random(len(places))
        ids[places[chance < MASKED]] = self.mask_id
        other = places[(chance >= MASKED) & (chance < MASKED + RANDOM)]
        ids[other] = random.integers(0, self.vocabulary, len(other))

    def logits(self, network: Network, batch: Batch) -> Tensor:
        """Logits [n, k, vocabulary] at the places that are to be predicted."""
        return self.inner.logits(network, batch)

    def ready(self, indices: Ints) -> None:
        """Nothing is to be done: no vectors of these rows are kept."""

    def drawn(self, stream: Stream) -> MaskedExamples:
        """The same texts with other words hidden."""
        return replace(self, draw=stream.integer())

    def release(self) -> None:
        """Unload what `inner` has mapped."""
        self.inner.release()


def prepare_masked(
    rows: Table, network: Network, config: ModelConfig, cache: Path
) -> MaskedExamples:
    """The rows of a table as masked texts, tokenized once.

    Raises UserError when the tokenizer has no mask.
    """
    tokenizer = network.tokenizer
    if tokenizer.mask_token_id is None:
        raise UserError(
            f"model.base: the tokenizer of '{config.base}' has no mask token (task=mlm)"
        )
    tokens, _ = tokenize(rows.texts, rows.labels, network, config, cache)
    special = np.array(sorted(tokenizer.all_special_ids), dtype=np.int64)
    return MaskedExamples(tokens, special, int(tokenizer.mask_token_id), len(tokenizer))
