"""Building the network of a run: base model, head, adapters."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from common.config import ModelConfig
from common.errors import UserError
from common.models.adapters import choose_trainable
from common.models.attention import attend_in_float32
from common.models.families import Family, family_of
from common.models.heads import TokenHead, last_layer
from common.models.loading import load_pretrained, load_tokenizer
from common.models.mean_pooled import MeanPooledConfig, MeanPooledForSequenceClassification
from common.models.network import Network, TrainedLayers, fingerprint
from common.models.whitening import FeatureWhitening
from common.seeds import derive
from common.tasks import TASKS, Task

_TASK_OF_HEAD = {"token": "ner", "lm": "mlm"}


def build(
    config: ModelConfig, labels: tuple[str, ...], seed: int, task: str | None = None
) -> Network:
    """Load `model.base`, add the head, and mark what is trained.

    A masked language model's output embeddings are its input embeddings and are not trained.

    Args:
        config: The settings of the model.
        labels: Names of the logits.
        seed: The head and LoRA's random factors are drawn from it, so that every side builds the
            same start.
        task: Name of the task; by default the one that the head is made for.

    Raises:
        UserError: The model cannot be loaded, or a setting does not fit it.
    """
    description = TASKS[task or _TASK_OF_HEAD.get(config.head, "classification")]
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "init"))
        stock = _stock_model(config, labels, description)
        encoder = encoder_of(stock)
        family = family_of(encoder.config)
        head = _head_of(stock, family, config)
        if config.head in ("cls", "token") and description.name != "classification":
            _start_near_zero(last_layer(head))
        if not family.own_attention:
            attend_in_float32(encoder)
        layers = (family.called_layers or family.layers)(encoder)
        count = len(layers)
        top = trained_layers(config, count)
        for parameter in stock.parameters():
            parameter.requires_grad_(False)
        upper = layers[count - top :]
        for parameter in [*upper.parameters(), *head.parameters()]:
            parameter.requires_grad_(True)
        choose_trainable(config, family, upper)
    stock.eval()
    return Network(
        stock=stock,
        tokenizer=load_tokenizer(config),
        family=family,
        embeddings=family.embeddings(encoder),
        frozen=layers[: count - top],
        trained=TrainedLayers(encoder.config, upper, head),
        shared=nn.ModuleList(family.shared(encoder)),
        fingerprint=fingerprint(stock),
        labels=labels,
        task=description,
    )


def trained_layers(config: ModelConfig, count: int) -> int:
    """The number of encoder layers, out of `count` and from the top, that are trained.

    Raises:
        UserError: There are fewer than `model.layers`.
    """
    if config.layers > count:
        raise UserError(f"model.layers: {config.layers} is more than the {count} encoder layers")
    return count if config.trainable == "full" or config.layers == 0 else config.layers


def encoder_of(stock: Any) -> Any:
    """The encoder inside a model that `build` or `export` makes."""
    if isinstance(stock, MeanPooledForSequenceClassification):
        return stock.encoder
    return getattr(stock, stock.base_model_prefix)


def layers_of(encoder: Any) -> nn.ModuleList:
    """An encoder's layers."""
    return family_of(encoder.config).layers(encoder)


def _stock_model(config: ModelConfig, labels: tuple[str, ...], task: Task) -> PreTrainedModel:
    """The transformers model that is trained and exported, on `model.base`."""
    settings = _settings(config, load_pretrained(AutoConfig, config.base, config.revision))
    names: dict[str, Any] = {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {name: i for i, name in enumerate(labels)},
    }
    if task.problem_type is not None:
        names["problem_type"] = task.problem_type
    if config.head == "mean":
        return _mean_pooled(config, settings, names)
    if config.head == "lm":
        names = {}
        kind: Any = AutoModelForMaskedLM
    elif config.head == "token":
        kind = AutoModelForTokenClassification
    else:
        kind = AutoModelForSequenceClassification
    # A checkpoint may bring a head for another task; it is replaced by a random one anyway.
    if config.head != "lm" and task.name != "classification":
        names["ignore_mismatched_sizes"] = True
    stock: PreTrainedModel = load_pretrained(
        kind, config.base, config.revision, **names, **settings
    )
    return stock


def _settings(config: ModelConfig, base: Any) -> dict[str, Any]:
    """Dropout and number of layers, as the family of `base` (a transformers config) names them.

    Raises:
        UserError: The family is not supported, or the model has too few layers or positions.
    """
    family = family_of(base)
    count = base.num_hidden_layers
    if config.drop_layers >= count:
        raise UserError(
            f"model.drop_layers: {config.drop_layers} leaves none of the {count} encoder layers"
        )
    positions = family.positions(base)
    if config.max_length > positions:
        raise UserError(
            f"model.max_length: {config.max_length} is more than the {positions} positions of "
            f"'{config.base}'"
        )
    dropouts = dict.fromkeys(family.dropouts, config.dropout)
    return {**dropouts, "num_hidden_layers": count - config.drop_layers}


def _mean_pooled(
    config: ModelConfig, settings: dict[str, Any], names: dict[str, Any]
) -> PreTrainedModel:
    """The encoder of `model.base` under a mean head."""
    encoder = load_pretrained(AutoModel, config.base, config.revision, **settings)
    outer = MeanPooledConfig(
        encoder=encoder.config.to_dict(),
        pooled_layers=1 + trained_layers(config, encoder.config.num_hidden_layers),
        **names,
    )
    model = MeanPooledForSequenceClassification(outer)
    # The head reads means; a pooler on [CLS] would only be parameters without use.
    encoder.pooler = None
    model.encoder.load_state_dict(encoder.state_dict())
    model.head.conditioning = FeatureWhitening(model.head.classifier.in_features, config.head_scale)
    _start_near_zero(model.head.classifier)
    return model


def _start_near_zero(classifier: nn.Linear) -> None:
    """Draw small weights, so that the first steps decide the direction and not the draw."""
    nn.init.normal_(classifier.weight, std=1e-3)
    nn.init.zeros_(classifier.bias)


def _head_of(stock: Any, family: Family, config: ModelConfig) -> nn.Module:
    """The head of a stock model as (states, mask) -> logits."""
    if isinstance(stock, MeanPooledForSequenceClassification):
        return stock.head
    if config.head == "lm":
        return family.masked_head(stock)
    if config.head == "token":
        return TokenHead(stock.dropout, stock.classifier, config.head_scale)
    return family.sequence_head(stock)
