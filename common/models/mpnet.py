"""MPNet (Song et al. 2020) with layers that are called as those of BERT are.

MPNet adds a bias to its attention scores that depends on the distance between two tokens.  All
layers share one table of biases, and the encoder of transformers passes the bias from layer to
layer.  Where an encoder is cut between two layers, each layer has to look up the bias itself.

The table is never trained: its gradient is a sum over positions that Opacus cannot attribute to
examples.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers.models.mpnet.modeling_mpnet import (
    MPNetAttention,
    MPNetEncoder,
    MPNetLayer,
    MPNetSelfAttention,
)


class PositionedAttention(nn.Module):
    """MPNet's attention, which adds the relative position bias by itself.

    It has the parameters of `attention` under the same names.
    """

    def __init__(self, attention: MPNetAttention, encoder: MPNetEncoder) -> None:
        super().__init__()
        self.attn: Any = attention.attn
        self.LayerNorm = attention.LayerNorm
        self.dropout = attention.dropout
        # In a list, so that the encoder is no submodule of its own layer.
        self._encoder = [encoder]

    def forward(self, hidden: Tensor, attention: Tensor | None = None) -> tuple[Tensor, None]:
        """Vectors [batch, tokens, hidden] after attention, residual and normalisation.

        Args:
            hidden: Vectors [batch, tokens, hidden].
            attention: Added to the scores, broadcastable to [batch, heads, tokens, tokens].
        """
        inner: MPNetSelfAttention = self.attn

        def split(vectors: Tensor) -> Tensor:
            heads = (inner.num_attention_heads, inner.attention_head_size)
            parts: Tensor = vectors.unflatten(-1, heads)
            return parts.transpose(1, 2)

        # The bias is the same for every row of a batch.
        bias: Tensor = self._encoder[0].compute_position_bias(hidden[:1])
        query = split(inner.q(hidden))
        mixed = nn.functional.scaled_dot_product_attention(
            query,
            split(inner.k(hidden)),
            split(inner.v(hidden)),
            attn_mask=(bias if attention is None else bias + attention).to(query.dtype),
            dropout_p=inner.dropout.p if inner.dropout.training else 0.0,
        )
        projected = inner.o(mixed.transpose(1, 2).flatten(2))
        attended: Tensor = self.LayerNorm(self.dropout(projected) + hidden)
        return attended, None


class PositionedLayer(nn.Module):
    """MPNet's layer with the interface of `BertLayer`: it can be entered behind its attention."""

    def __init__(self, layer: MPNetLayer, encoder: MPNetEncoder) -> None:
        super().__init__()
        self.attention = PositionedAttention(layer.attention, encoder)
        self.intermediate = layer.intermediate
        self.output = layer.output

    def forward(self, hidden: Tensor, attention: Tensor | None = None) -> Tensor:
        """Vectors [batch, tokens, hidden] from those of the layer below."""
        attended, _ = self.attention(hidden, attention)
        return self.feed_forward_chunk(attended)

    def feed_forward_chunk(self, attended: Tensor) -> Tensor:
        """Vectors [batch, tokens, hidden] from those behind this layer's attention."""
        vectors: Tensor = self.output(self.intermediate(attended), attended)
        return vectors


def position_layers(encoder: MPNetEncoder) -> nn.ModuleList:
    """Layers that share the parameters of the encoder's own and look up the bias themselves.

    The encoder stays as it is and can be exported.
    """
    layers: Any = encoder.layer
    return nn.ModuleList([PositionedLayer(layer, encoder) for layer in layers])
