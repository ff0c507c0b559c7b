"""Does a gradient reach every tensor that is to be trained?  Asked of made-up tokens alone.

A wrong wrapper can cut a part of the model off from its gradient in silence (Opacus issue 820: LoRA
deltas of exactly zero while the loss fell).  Whether a tensor moves on a partner's own rows may
never be asked in a message: it depends on the rows, and the answer is free of noise.
"""

from __future__ import annotations

from functools import lru_cache

import torch

from common.models.adapters import must_have_gradient
from common.models.heads import PREDICTED
from common.models.network import Network

ROWS, TOKENS = 2, 8


@lru_cache(maxsize=1)
def cut_off(network: Network) -> tuple[str, ...]:
    """Names of trainable tensors that no gradient reaches, sorted; looked at once per network.

    Left out are tensors whose gradient is zero by definition (`must_have_gradient`).
    """
    device = next(iter(network.trainable().values())).device
    vocabulary = network.trained.config.vocab_size
    # Spread over the vocabulary by a fixed rule: nothing here needs chance.
    ids = (torch.arange(ROWS * TOKENS).view(ROWS, TOKENS) * 7919 % vocabulary).to(device)
    mask = torch.ones_like(ids)
    if network.task.name == "mlm":
        mask[:, 1:3] = PREDICTED
    parameters = network.trainable()
    with torch.enable_grad():
        logits = network.logits(ids, mask).float()
        # Directions without a pattern, so that no parameter's parts cancel.
        weights = torch.arange(1.0, logits.numel() + 1).square().cos().view(logits.shape).to(device)
        gradients = torch.autograd.grad(
            (logits * weights).sum(), list(parameters.values()), allow_unused=True
        )
    pairs = zip(parameters, gradients, strict=True)
    silent = [name for name, gradient in pairs if gradient is None or not bool(gradient.any())]
    return tuple(must_have_gradient(network.read(), silent))
