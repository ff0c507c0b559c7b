"""The delivered model: a folder that `transformers.pipeline` loads."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from common.config import Config
from common.files import atomic_directory
from common.models import mean_pooled
from common.models.adapters import merge_adapters
from common.models.build import build
from common.models.heads import last_layer
from common.models.mean_pooled import MeanPooledForSequenceClassification


def export(parameters: Mapping[str, Tensor], config: Config, directory: Path) -> None:
    """Write the model, with `parameters` merged into its weights, and its tokenizer.

    A model with a head of transformers' own loads as it is.  One with a mean head comes with a
    small modelling file, which `trust_remote_code=True` admits.

    Args:
        parameters: The trained parameters by name.
        config: The configuration of the run.
        directory: The folder to write; it replaces an earlier one.
    """
    network = build(config.model, config.outputs, config.run.seed, config.task)
    network.write(parameters)
    merge_adapters(network)
    scale = config.about.delivered_scale(config.data)
    if scale is not None:
        _rescale(last_layer(network.trained.head), *scale)
    save_model(network.stock, network.tokenizer, directory)


@torch.no_grad()
def _rescale(layer: nn.Linear, factor: float, offset: float) -> None:
    """Make a linear layer answer factor·y + offset in the place of y, in place."""
    layer.weight.mul_(factor)
    layer.bias.mul_(factor).add_(offset)


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    """Write a model and its tokenizer to `directory`, replacing an earlier one."""
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
