"""The network, cut in two.

The *frozen layers* (embeddings, the lower encoder layers) turn tokens into vectors.  The *trained
layers* (the upper encoder layers and the head) turn those into logits.  Only their trainable
parameters travel.  The cut makes it possible to compute the vectors once and to cache them.  Where
nothing of the lowest trained layer's attention is trained, the cut is behind that attention.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.masking_utils import create_bidirectional_mask

from common.models.families import Family
from common.models.mean_pooled import mean_vectors
from common.tasks import Task


class TrainedLayers(nn.Module):
    """The upper encoder layers and the head."""

    def __init__(self, config: PretrainedConfig, layers: nn.ModuleList, head: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.layers = layers
        self.head = head

    def forward(self, hidden: Tensor, mask: Tensor, entered: Tensor | None = None) -> Tensor:
        """Logits from the vectors that the frozen layers computed.

        Args:
            hidden: Vectors [batch, tokens, hidden].
            mask: [batch, tokens]; 0 is padding.
            entered: If given, `hidden` has passed the first layer's attention already, and
                `entered` [batch, hidden] are the means of the vectors that entered it.

        Returns:
            Logits [batch, labels], or as the head's own docstring says.
        """
        layers: list[Any] = list(self.layers)
        states = [hidden if entered is None else entered]
        if entered is not None:
            hidden = layers.pop(0).feed_forward_chunk(hidden)
            states.append(hidden)
        attention = None
        if layers:
            attention = create_bidirectional_mask(
                config=self.config, inputs_embeds=hidden, attention_mask=mask.bool()
            )
        for layer in layers:
            hidden = layer(hidden, attention)
            states.append(hidden)
        logits: Tensor = self.head(states, mask)
        return logits


@dataclass(frozen=True)
class Network:
    """A loaded model.

    Attributes:
        stock: The transformers model that is exported; `embeddings`, `frozen` and `trained` are
            views of its parts.
        tokenizer: Its tokenizer.
        family: How its family names its parts.
        embeddings: Token ids to vectors.
        frozen: The frozen encoder layers.
        trained: The trained encoder layers and the head.
        shared: Modules outside the layers that the layers read; never trained.
        fingerprint: SHA-256 over all parameters at the start.
        labels: Names of the logits.
        task: What the network is trained for.
    """

    stock: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    family: Family
    embeddings: nn.Module
    frozen: nn.ModuleList
    trained: TrainedLayers
    shared: nn.ModuleList
    fingerprint: str
    labels: tuple[str, ...]
    task: Task

    @cached_property
    def frozen_fingerprint(self) -> str:
        """SHA-256 over the frozen part alone: the identity of cached vectors."""
        attention = [self._attention] if self.freezes_attention else []
        return fingerprint(nn.ModuleList([self.embeddings, self.frozen, *attention, *self.shared]))

    @property
    def _attention(self) -> Any:
        """The attention of the lowest trained layer."""
        layer: Any = self.trained.layers[0]
        return layer.attention

    @property
    def frozen_layers(self) -> int:
        """The number of frozen encoder layers."""
        return len(self.frozen)

    @cached_property
    def freezes_attention(self) -> bool:
        """Whether the frozen part includes the attention of the lowest trained layer.

        It does where no parameter of that attention is trained and it has no dropout, which
        training would turn on.
        """
        return (
            self.frozen_layers > 0
            and self.family.splits_layers
            and not any(p.requires_grad for p in self._attention.parameters())
            and not any(isinstance(m, nn.Dropout) and m.p > 0 for m in self._attention.modules())
        )

    @property
    def frozen_depth(self) -> float:
        """Frozen layers, plus a half where the cut is behind an attention."""
        return self.frozen_layers + (0.5 if self.freezes_attention else 0.0)

    def run_frozen(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """Run the frozen part, without gradients.

        Args:
            ids: Token ids [batch, tokens].
            mask: [batch, tokens]; 0 is padding.

        Returns:
            `hidden` and `entered` as `TrainedLayers.forward` takes them.
        """
        with torch.no_grad():
            hidden: Tensor = self.embeddings(input_ids=ids)
            attention = create_bidirectional_mask(
                config=self.trained.config, inputs_embeds=hidden, attention_mask=mask.bool()
            )
            for layer in self.frozen:
                hidden = layer(hidden, attention)
            if not self.freezes_attention:
                return hidden, None
            attended, _ = self._attention(hidden, attention)
        return attended, mean_vectors(hidden, mask.bool())

    def logits(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits as `TrainedLayers.forward` returns them, from ids and mask [batch, tokens]."""
        hidden, entered = self.run_frozen(ids, mask)
        logits: Tensor = self.trained(hidden, mask, entered)
        return logits

    @cached_property
    def _trainable(self) -> dict[str, nn.Parameter]:
        return {n: p for n, p in self.trained.named_parameters() if p.requires_grad}

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that travel, by name, in a fixed order."""
        return dict(self._trainable)

    def constants(self) -> dict[str, Tensor]:
        """Public tensors that travel to the partners and are never trained."""
        return {n: b.detach().float().cpu() for n, b in self.trained.head.named_buffers("head")}

    def read(self) -> dict[str, Tensor]:
        """Copies of the trainable parameters, float32 on the CPU."""
        return {n: p.detach().float().cpu().clone() for n, p in self.trainable().items()}

    def write(self, parameters: Mapping[str, Tensor]) -> None:
        """Overwrite the trainable parameters, and those constants that come with them.

        Raises:
            ValueError: A name is missing or unknown, or a shape differs.
        """
        own: dict[str, Tensor] = dict(self.trainable())
        given = set(parameters)
        own |= {n: b for n, b in self.trained.head.named_buffers("head") if n in given}
        if set(own) != given:
            wrong = sorted(set(own) ^ set(parameters))
            raise ValueError(f"parameters do not belong to this model: {wrong[0]} and others")
        with torch.no_grad():
            for name, parameter in own.items():
                if parameter.shape != parameters[name].shape:
                    raise ValueError(f"parameter {name} has another shape")
                parameter.copy_(parameters[name])


def fingerprint(module: nn.Module) -> str:
    """SHA-256 over every tensor: two sides with the same value start from the same model."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().cpu().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
