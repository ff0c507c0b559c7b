"""MPNet (Song et al. 2020) with layers that are called as those of BERT are.

MPNet adds a bias to its attention scores that depends on the distance between two tokens.  All
layers share one table of biases, and the encoder of transformers passes the bias from layer to
layer.  Where an encoder is cut between two layers, each layer has to look up the bias itself.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers.models.mpnet.modeling_mpnet import MPNetAttention, MPNetEncoder, MPNetLayer


class PositionedAttention(MPNetAttention):
    """Attention that adds the encoder's relative position bias by itself."""

    # The encoder in a list: it is no part of the layer, whose parameters keep their names.
    encoder: list[MPNetEncoder]

    def forward(
        self, hidden: Tensor, attention: Tensor | None = None, **_: Any
    ) -> tuple[Tensor, None]:
        """Vectors [batch, tokens, hidden] behind the attention, its residual and normalisation.

        Args:
            hidden: vectors [batch, tokens, hidden].
            attention: added to the scores, broadcastable to [batch, heads, tokens, tokens].
        """
        inner = self.attn

        def split(vectors: Tensor) -> Tensor:
            heads = (inner.num_attention_heads, inner.attention_head_size)
            return vectors.unflatten(-1, heads).transpose(1, 2)

        # Of one row: the bias is the same for every row of a batch.
        bias = self.encoder[0].compute_position_bias(hidden[:1]).to(hidden.dtype)
        mixed = nn.functional.scaled_dot_product_attention(
            split(inner.q(hidden)),
            split(inner.k(hidden)),
            split(inner.v(hidden)),
            attn_mask=bias if attention is None else bias + attention,
            dropout_p=inner.dropout.p if inner.dropout.training else 0.0,
        )
        projected = inner.o(mixed.transpose(1, 2).flatten(2))
        attended: Tensor = self.LayerNorm(self.dropout(projected) + hidden)
        return attended, None


class PositionedLayer(MPNetLayer):
    """A layer with the interface of `BertLayer`: it can be entered behind its attention."""

    def forward(self, hidden: Tensor, attention: Tensor | None = None, **_: Any) -> Tensor:
        """Vectors [batch, tokens, hidden] from those below; `attention` as in the attention."""
        attended, _weights = self.attention(hidden, attention)
        return self.feed_forward_chunk(attended)

    def feed_forward_chunk(self, attended: Tensor) -> Tensor:
        """Vectors [batch, tokens, hidden] from those behind this layer's attention."""
        vectors: Tensor = self.output(self.intermediate(attended), attended)
        return vectors


def position_layers(encoder: MPNetEncoder) -> nn.ModuleList:
    """Copies of the encoder's layers that share its parameters and look up the bias themselves.

    The encoder itself stays as it is and can be exported.
    """
    return nn.ModuleList([_positioned(layer, encoder) for layer in encoder.layer])


def _positioned(layer: MPNetLayer, encoder: MPNetEncoder) -> PositionedLayer:
    attention = PositionedAttention.__new__(PositionedAttention)
    nn.Module.__init__(attention)
    for name, module in layer.attention.named_children():
        attention.add_module(name, module)
    attention.encoder = [encoder]
    copy = PositionedLayer.__new__(PositionedLayer)
    nn.Module.__init__(copy)
    copy.add_module("attention", attention)
    copy.add_module("intermediate", layer.intermediate)
    copy.add_module("output", layer.output)
    return copy
