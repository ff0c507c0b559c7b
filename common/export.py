"""The delivered model: a folder that `transformers.pipeline` loads."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

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
    shutil.rmtree(directory, ignore_errors=True)
    with atomic_directory(directory) as temporary:
        if isinstance(network.stock, MeanPooledForSequenceClassification):
            module = Path(mean_pooled.__file__)
            shutil.copy(module, temporary / module.name)
            network.stock.config.auto_map = {
                "AutoConfig": "mean_pooled.MeanPooledConfig",
                "AutoModelForSequenceClassification": (
                    "mean_pooled.MeanPooledForSequenceClassification"
                ),
            }
        network.stock.save_pretrained(temporary)
        network.tokenizer.save_pretrained(temporary)
