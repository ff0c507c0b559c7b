"""A BERT-family classifier whose head reads mean token vectors of several layers.

This file is copied beside an exported model, so that
``pipeline("text-classification", model=..., trust_remote_code=True)`` loads it with nothing but
transformers installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


class MeanPooledConfig(PretrainedConfig):
    """`encoder` is the wrapped encoder's own config as a dict.

    `pooled_layers` counts the layers, from the last one down, whose mean vectors the head reads;
    `head_scale` multiplies them.
    """

    model_type = "mean_pooled"

    def __init__(
        self,
        encoder: dict[str, Any] | None = None,
        pooled_layers: int = 1,
        head_scale: float = 1.0,
        **kwargs: Any,
    ) -> None:
        self.encoder = encoder or {}
        self.pooled_layers = pooled_layers
        self.head_scale = head_scale
        super().__init__(**kwargs)


class MeanHead(nn.Module):
    """Linear classifier on standardised mean token vectors of `layers` layers.

    The last layer of a sentence encoder has forgotten part of what its lower layers know, so the
    head reads the layers that are trained and the one below them, side by side.

    `center` and `spread` are constants, measured once on public text before training (0 and 1
    without any).  Sentence vectors of BERT models lie in a narrow cone: without this the gradient
    points along the cone's axis, and clipping leaves little of what tells the labels apart.
    """

    center: torch.Tensor
    spread: torch.Tensor

    def __init__(self, hidden_size: int, layers: int, num_labels: int, scale: float) -> None:
        super().__init__()
        self.layers = layers
        self.scale = scale
        self.register_buffer("center", torch.zeros(layers * hidden_size))
        self.register_buffer("spread", torch.ones(layers * hidden_size))
        self.classifier = nn.Linear(layers * hidden_size, num_labels)

    def pool(self, states: Sequence[torch.Tensor], mask: torch.Tensor) -> torch.Tensor:
        """Mean vectors [batch, layers * hidden] of the last `layers` of `states`.

        Each state is [batch, tokens, hidden]; `mask` [batch, tokens] leaves padding out.
        """
        weights = mask.unsqueeze(-1).to(torch.float32)
        count = weights.sum(1).clamp(min=1.0)
        means = [(state.float() * weights).sum(1) / count for state in states[-self.layers :]]
        return torch.cat(means, dim=1)

    def forward(self, states: Sequence[torch.Tensor], mask: torch.Tensor) -> torch.Tensor:
        """Logits [batch, labels] from every layer's token vectors and their mask."""
        features = (self.pool(states, mask) - self.center) / self.spread
        logits: torch.Tensor = self.classifier(features * self.scale)
        return logits


class MeanPooledForSequenceClassification(PreTrainedModel):
    """Encoder of any BERT family with a `MeanHead`."""

    config_class = MeanPooledConfig

    def __init__(self, config: MeanPooledConfig) -> None:
        super().__init__(config)
        settings = dict(config.encoder)
        self.encoder = AutoModel.from_config(
            AutoConfig.for_model(settings.pop("model_type"), **settings)
        )
        if getattr(self.encoder, "pooler", None) is not None:
            self.encoder.pooler = None
        hidden_size = self.encoder.config.hidden_size
        self.head = MeanHead(
            hidden_size, config.pooled_layers, int(config.num_labels or 2), config.head_scale
        )
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Logits, and the cross-entropy when labels are given."""
        kwargs.pop("token_type_ids", None)
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        encoded = self.encoder(input_ids=input_ids, attention_mask=mask, output_hidden_states=True)
        logits = self.head(encoded.hidden_states, mask)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)
