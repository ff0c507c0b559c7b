"""Attention whose backward pass is quick on a processor too.

torch 2.9 to 2.13 go back through bfloat16 attention on a processor four to eight times slower than
through float32 attention, which made two fifths of a step of full fine-tuning.  So where attention
is trained in bfloat16 on a processor, its product is taken in float32, which is also the more exact
one.  Everywhere else it is torch's attention as transformers calls it.
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
    """Vectors [n, tokens, heads, width] from queries, keys and values [n, heads, tokens, width]."""
    trained = torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value))
    if not trained or query.device.type != "cpu" or query.dtype != torch.bfloat16:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    q, k, v = query.float(), key.float(), value.float()
    with torch.autocast("cpu", enabled=False):
        found, _ = sdpa_attention_forward(module, q, k, v, attention_mask, **options)
    return found.to(query.dtype), None


def attend_in_float32(encoder: PreTrainedModel) -> None:
    """Let `encoder` compute its attention by `attention`."""
    # A checkpoint may ask for the matrices of weights, which this attention has not.
    encoder.config.output_attentions = False
    encoder.set_attn_implementation(NAME)


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
