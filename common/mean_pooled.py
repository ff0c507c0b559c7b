"""A BERT-family classifier whose head reads the mean of the token vectors.

This file is copied beside an exported model, so that
``pipeline("text-classification", model=..., trust_remote_code=True)`` loads it with nothing but
transformers installed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


class MeanPooledConfig(PretrainedConfig):  # type: ignore[misc]
    """`encoder` is the wrapped encoder's own config as a dict; `head_scale` multiplies the mean."""

    model_type = "mean_pooled"

    def __init__(
        self, encoder: dict[str, Any] | None = None, head_scale: float = 1.0, **kwargs: Any
    ) -> None:
        self.encoder = encoder or {}
        self.head_scale = head_scale
        super().__init__(**kwargs)


class MeanHead(nn.Module):
    """Linear classifier on the scaled mean of the unpadded token vectors."""

    def __init__(self, hidden_size: int, num_labels: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.classifier = nn.Linear(hidden_size, num_labels)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Logits [batch, labels] from token vectors [batch, tokens, hidden] and their mask."""
        weights = mask.unsqueeze(-1).to(torch.float32)
        mean = (hidden.float() * weights).sum(1) / weights.sum(1).clamp(min=1.0)
        logits: torch.Tensor = self.classifier(mean * self.scale)
        return logits


class MeanPooledForSequenceClassification(PreTrainedModel):  # type: ignore[misc]
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
        self.head = MeanHead(hidden_size, config.num_labels, config.head_scale)
        self.post_init()

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
        hidden = self.encoder(input_ids=input_ids, attention_mask=mask).last_hidden_state
        logits = self.head(hidden, mask)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)
