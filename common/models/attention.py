"""Attention whose backward pass is fast on a CPU too.

In torch 2.9 to 2.13 the backward pass of bfloat16 attention on a CPU takes four to eight times as
long as that of float32 attention: two fifths of a step of full fine-tuning.  So where attention is
trained in bfloat16 on a CPU, it is computed in float32, which is also more precise.  Everywhere
else it is torch's attention as transformers calls it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "fedaccord"


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers' AttentionInterface defines it.

    Args:
        module: The attention module that calls.
        query: [n, heads, tokens, width], as `key` and `value`.
        key: See `query`.
        value: See `query`.
        attention_mask: Broadcastable to [n, heads, tokens, tokens], or None.
        **options: Passed on to transformers.

    Returns:
        Vectors [n, tokens, heads, width], and None in the place of attention weights.
    """
    trained = torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value))
    if not trained or query.device.type != "cpu" or query.dtype != torch.bfloat16:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    q, k, v = query.float(), key.float(), value.float()
    with torch.autocast("cpu", enabled=False):
        attended, _ = sdpa_attention_forward(module, q, k, v, attention_mask, **options)
    return attended.to(query.dtype), None


def attend_in_float32(encoder: PreTrainedModel) -> None:
    """Make `encoder` compute its attention with `attention`."""
    # A checkpoint may ask for attention weights, which this attention does not return.
    encoder.config.output_attentions = False
    encoder.set_attn_implementation(NAME)


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
