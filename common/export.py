"""The delivered model: a folder that `transformers.pipeline` loads."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from common import mean_pooled
from common.config import Config
from common.files import atomic_directory
from common.mean_pooled import MeanPooledForSequenceClassification
from common.model import build, last_layer, merge_adapters


def export(parameters: Mapping[str, Tensor], config: Config, directory: Path) -> None:
    """Write the model with `parameters` merged into the base weights, and its tokenizer.

    A stock head needs nothing else to load; the mean-pooled head travels as a small modelling file
    that `trust_remote_code=True` admits.
    """
    network = build(config.model, config.outputs, config.run.seed, config.task)
    network.write(parameters)
    merge_adapters(network)
    config.about.deliver(last_layer(network), config.data)
    save_model(network.stock, network.tokenizer, directory)


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    """Write the folder, in the place of an earlier one."""
    shutil.rmtree(directory, ignore_errors=True)
    with atomic_directory(directory) as temporary:
        if isinstance(model, MeanPooledForSequenceClassification):
            module = Path(mean_pooled.__file__)
            shutil.copy(module, temporary / module.name)
            model.config.auto_map = {
                "AutoConfig": "mean_pooled.MeanPooledConfig",
                "AutoModelForSequenceClassification": (
                    "mean_pooled.MeanPooledForSequenceClassification"
                ),
            }
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
