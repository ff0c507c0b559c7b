"""Masked-language modelling: continued pre-training on the partners' own language."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from common.data.schema import DataConfig
from common.errors import UserError
from common.losses import IGNORED, record_losses
from common.tasks.base import Measured, RowTally, Tally, Task, finite

if TYPE_CHECKING:
    from common.config import Config
    from common.features import Batch, Examples


class MaskedLanguage(Task):
    """Cross-entropy of hidden sub-tokens, mean over those of a text.

    A row's table holds the share of its hidden sub-tokens that were predicted right, so that a text
    counts as one whatever its length.
    """

    name = "mlm"
    target = "none"
    heads = ("lm",)
    pipeline = "fill-mask"
    # A little over the loss of guessing among a vocabulary of 30,000 (10.3).
    loss_bound = 12.0
    headline = ("perplexity", False)
    figure_names = ("perplexity",)
    accuracy_means = "the share of a text's hidden words that are predicted right, mean over texts"
    classes = False
    noun = "masked language model"

    def outputs(self, data: DataConfig) -> tuple[str, ...]:
        """None of its own: the logits are of the tokenizer's vocabulary."""
        return ()

    def table_size(self, outputs: int) -> int:
        """The second row alone holds anything: wrong, right."""
        return 2

    def check(self, config: Config) -> None:
        """Labels, frozen layers and clipping."""
        if config.data.labels:
            raise UserError("data.labels: texts alone are read; leave it empty (task=mlm)")
        if config.model.prefix_cache:
            raise UserError(
                "model.prefix_cache: other words are hidden in every message, so that nothing can "
                "be computed once; set it to false (task=mlm)"
            )
        if config.privacy.grad_sample_mode == "auto":
            raise UserError(
                "privacy.grad_sample_mode: auto measures classifiers; use hooks (task=mlm)"
            )

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """The mean over a text's hidden sub-tokens."""
        owner = torch.arange(len(batch), device=logits.device)
        return record_losses(logits, batch.labels, owner, len(batch))

    def made_up(self, rows: int, outputs: int) -> npt.NDArray[Any]:
        """None: a text is its own target."""
        return np.zeros(rows, dtype=np.int64)

    def tally(self, outputs: Sequence[str], rows: int) -> Tally:
        """Shares predicted right."""
        return _Tally(rows)

    def figures(self, measured: Measured, data: DataConfig) -> dict[str, float | None]:
        """Perplexity: e to the mean loss (each text's clipped to `loss_bound`)."""
        return {"perplexity": finite(math.exp(measured.loss))}

    def does(self, data: DataConfig) -> str:
        """As a clause."""
        return "fills in hidden words"

    def purpose(self, names: str) -> str:
        """As a clause."""
        return "a start for fine-tuning on, and for filling in hidden words of,"

    def names(self, data: DataConfig) -> tuple[str, Sequence[str]]:
        """The vocabulary."""
        return "Answers", ["any word of its vocabulary"]

    def use(self, remote: str) -> str:
        """As a line of Python."""
        return f'fill = pipeline("{self.pipeline}", model="PATH")'


class _Tally(RowTally):
    def add(self, examples: Examples, batch: Batch, logits: Tensor) -> None:
        there = batch.labels != IGNORED
        hits = ((logits.argmax(-1) == batch.labels) & there).sum(1).double()
        # A text that has nothing to hide is right.
        right = torch.where(there.any(1), hits / there.sum(1).clamp(min=1), 1.0).numpy()
        self.tables[batch.indices, 1] = np.stack([1 - right, right], 1)
