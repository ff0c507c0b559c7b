"""The delivered model of a run, to ask it again: its labels for texts, and its public test rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from common.config import Config
from common.config_file import read_config
from common.data.table import Table
from common.errors import UserError
from common.examples.batch import Ints, by_length
from common.models.mean_pooled import MeanPooledConfig, MeanPooledForSequenceClassification
from server.testset import public_rows

TOKENS = 8192


@dataclass(frozen=True)
class Trained:
    """`model` in float32 on the CPU, ready to be evaluated; `labels` in the order of its logits."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    labels: tuple[str, ...]

    def encode(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Token ids and mask [n, t], cut as in training."""
        found = self.tokenizer(list(texts), truncation=True, padding=True, return_tensors="pt")
        return {"input_ids": found["input_ids"], "attention_mask": found["attention_mask"]}

    def predict(self, texts: Sequence[str]) -> Ints:
        """The label that each text gets, [n]."""
        predicted = np.zeros(len(texts), dtype=np.int64)
        # Characters stand for tokens here: only the size of a batch depends on it.
        lengths = np.array([min(len(t), 4 * self.tokenizer.model_max_length) for t in texts])
        for chosen in by_length(lengths.astype(np.int64), 4 * TOKENS):
            with torch.inference_mode():
                logits = self.model(**self.encode([texts[i] for i in chosen])).logits
            predicted[chosen] = logits.argmax(1).numpy()
        return predicted


def load_delivered(directory: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """`model/` of a run directory, whatever its task, in float32 on the CPU; none of its code runs.

    Raises UserError when there is no model or it cannot be loaded.
    """
    place = directory / "model"
    about = _about(place)
    AutoConfig.register("mean_pooled", MeanPooledConfig, exist_ok=True)
    AutoModelForSequenceClassification.register(
        MeanPooledConfig, MeanPooledForSequenceClassification, exist_ok=True
    )
    transformers_logging.disable_progress_bar()
    try:
        model = _class_of(about).from_pretrained(place, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"{place}: cannot be loaded: {first}") from error
    return model.eval().float(), tokenizer


def _about(place: Path) -> dict[str, Any]:
    """The model's config.json."""
    try:
        found = json.loads((place / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{place}: there is no trained model; is this a finished run?") from None
    return dict(found)


def _class_of(about: Mapping[str, Any]) -> Any:
    kinds = about.get("architectures") or []
    if any(name.endswith("ForTokenClassification") for name in kinds):
        return AutoModelForTokenClassification
    if any(name.endswith("ForMaskedLM") for name in kinds):
        return AutoModelForMaskedLM
    return AutoModelForSequenceClassification


def load_trained(directory: Path) -> Trained:
    """Load a classifier with one label; none of the code in its folder is run.

    Raises UserError when there is no model, it is for another task or cannot be loaded.
    """
    place = directory / "model"
    about = _about(place)
    if _class_of(about) is AutoModelForTokenClassification:
        raise UserError(f"{place}: tags words (task=ner); this command asks text classifiers")
    if _class_of(about) is AutoModelForMaskedLM:
        raise UserError(f"{place}: fills in words (task=mlm); this command asks text classifiers")
    if (kind := about.get("problem_type")) in ("multi_label_classification", "regression"):
        raise UserError(f"{place}: is for {kind}; this command asks classifiers with one label")
    model, tokenizer = load_delivered(directory)
    names: Any = model.config.id2label
    return Trained(model, tokenizer, tuple(names[i] for i in range(len(names))))


def load_config(directory: Path) -> Config:
    """The configuration of a run.

    Raises UserError when config.yaml cannot be read.
    """
    return read_config(directory / "config.yaml")


def test_rows(directory: Path, most: int) -> Table:
    """The rows that the run's figures were measured on, at most `most` (evenly spread).

    Raises UserError when the run had none.
    """
    found = public_rows(load_config(directory))
    if found is None:
        raise UserError(f"{directory}: the run had no held-out rows (data.test_fraction is 0)")
    rows = found[0]
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(np.int64))
    return rows.select(chosen)
