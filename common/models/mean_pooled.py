"""A BERT-family classifier whose head reads the mean token vectors of several layers.

This file is copied into the folder of an exported model, so that
``pipeline("text-classification", model=..., trust_remote_code=True)`` loads that model with nothing
but transformers installed.  It must therefore import nothing of this project.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


class MeanPooledConfig(PretrainedConfig):
    """Configuration of `MeanPooledForSequenceClassification`.

    Args:
        encoder: The configuration of the wrapped encoder, as a dictionary.
        pooled_layers: The number of layers, from the last one down, whose mean vectors the head
            reads.
        **kwargs: Passed on to transformers.
    """

    model_type = "mean_pooled"

    def __init__(
        self,
        encoder: dict[str, Any] | None = None,
        pooled_layers: int = 1,
        **kwargs: Any,
    ) -> None:
        self.encoder = encoder or {}
        self.pooled_layers = pooled_layers
        super().__init__(**kwargs)


def mean_vectors(state: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Means [batch, hidden], float32, of vectors [batch, tokens, hidden] where `mask` is not 0."""
    weights = mask.unsqueeze(-1).to(torch.float32)
    total: torch.Tensor = (state.float() * weights).sum(1)
    return total / weights.sum(1).clamp(min=1.0)


class MeanHead(nn.Module):
    """Linear classifier on the mean token vectors of `layers` layers.

    The last layer of a sentence encoder has lost part of the information in its lower layers, so
    the head reads the trained layers and the one below them, concatenated.

    While the model is trained, `conditioning` maps the vectors [batch, layers * hidden] to others
    of the same shape.  An exported model has none: it is merged into the classifier.
    """

    def __init__(self, hidden_size: int, layers: int, num_labels: int) -> None:
        super().__init__()
        self.layers = layers
        self.conditioning: nn.Module | None = None
        self.classifier = nn.Linear(layers * hidden_size, num_labels)

    @property
    def last(self) -> nn.Linear:
        """The layer that the logits come from."""
        return self.classifier

    def pool(self, states: Sequence[torch.Tensor], mask: torch.Tensor) -> torch.Tensor:
        """Mean vectors [batch, layers * hidden] of the last `layers` of `states`.

        Each state is [batch, tokens, hidden], or [batch, hidden] if it is a mean already.  `mask`
        [batch, tokens] excludes padding.
        """
        means = [
            state.float() if state.dim() == 2 else mean_vectors(state, mask)
            for state in states[-self.layers :]
        ]
        return torch.cat(means, dim=1)

    def forward(self, states: Sequence[torch.Tensor], mask: torch.Tensor) -> torch.Tensor:
        """Logits [batch, labels] from every layer's token vectors and their mask."""
        features = self.pool(states, mask)
        if self.conditioning is not None:
            features = self.conditioning(features)
        logits: torch.Tensor = self.classifier(features)
        return logits


class MeanPooledForSequenceClassification(PreTrainedModel):
    """An encoder of any BERT family under a `MeanHead`."""

    config_class = MeanPooledConfig

    def __init__(self, config: MeanPooledConfig) -> None:
        super().__init__(config)
        settings = dict(config.encoder)
        self.encoder = AutoModel.from_config(
            AutoConfig.for_model(settings.pop("model_type"), **settings), trust_remote_code=False
        )
        if getattr(self.encoder, "pooler", None) is not None:
            self.encoder.pooler = None
        hidden_size = self.encoder.config.hidden_size
        self.head = MeanHead(hidden_size, config.pooled_layers, int(config.num_labels or 2))
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Logits, and, given labels, the loss that `config.problem_type` names."""
        kwargs.pop("token_type_ids", None)
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        encoded = self.encoder(input_ids=input_ids, attention_mask=mask, output_hidden_states=True)
        logits = self.head(encoded.hidden_states, mask)
        loss = None
        if labels is not None and self.config.problem_type == "multi_label_classification":
            loss = nn.functional.binary_cross_entropy_with_logits(logits, labels)
        elif labels is not None and self.config.problem_type == "regression":
            loss = nn.functional.mse_loss(logits, labels)
        elif labels is not None:
            loss = nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)
