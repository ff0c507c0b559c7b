"""Masked-language modelling: continued pre-training on the partners' own language."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from common.data.schema import DataConfig
from common.errors import UserError
from common.figures import PERPLEXITY
from common.tasks.base import Measured, Settings, Task, finite


class MaskedLanguage(Task):
    """Cross-entropy of hidden sub-tokens, averaged within each text.

    The confusion matrix of an example has the share of its hidden sub-tokens that were predicted
    wrongly and rightly in its second row, so every text counts as one, whatever its length.
    """

    name = "mlm"
    target = "none"
    heads = ("lm",)
    pipeline = "fill-mask"
    # A little over the loss of guessing among a vocabulary of 30,000 (10.3).
    loss_bound = 12.0
    headline = PERPLEXITY
    own_figures = (PERPLEXITY,)
    accuracy_means = "the share of a text's hidden words that are predicted right, mean over texts"
    classes = False
    noun = "masked language model"

    def outputs(self, data: DataConfig) -> tuple[str, ...]:
        """None of its own: the logits are of the tokenizer's vocabulary."""
        return ()

    def confusion_size(self, outputs: int) -> int:
        """Wrong and right, in the second row."""
        return 2

    def check(self, config: Settings) -> None:
        """Labels, the cache of frozen layers, and clipping."""
        if config.data.labels:
            raise UserError("data.labels: task=mlm reads texts alone; leave it empty")
        if config.model.prefix_cache:
            raise UserError(
                "model.prefix_cache: task=mlm masks other words in every round, so vectors of "
                "frozen layers cannot be reused; set it to false"
            )
        if config.privacy.grad_sample_mode == "auto":
            raise UserError(
                "privacy.grad_sample_mode: auto measures classifiers only; use hooks with task=mlm"
            )

    def made_up(self, rows: int, outputs: int) -> npt.NDArray[Any]:
        """Placeholders: a text is its own target."""
        return np.zeros(rows, dtype=np.int64)

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
