"""Standardise the head's input on the server's public rows, before training begins."""

from __future__ import annotations

import torch

from common.device import Device
from common.features import Examples, by_length
from common.mean_pooled import MeanHead
from common.model import Network

CALIBRATION_TOKENS = 8192


def calibrate_head(network: Network, public: Examples, device: Device) -> None:
    """Set `center` and `spread` of a mean head from unlabelled public rows, in place.

    Afterwards the head's input has mean 0, equal variance in every direction of the basis, and a
    root mean square norm of 1 before `head_scale`.  Uses no private row and no label, so it costs
    no privacy; both constants travel to the partners with the parameters.
    """
    head = network.suffix.head
    if not isinstance(head, MeanHead) or len(public) < 2:
        return
    vectors = []
    hook = head.register_forward_pre_hook(lambda _, args: vectors.append(head.pool(*args)))
    try:
        for chosen in by_length(public.lengths, CALIBRATION_TOKENS):
            batch = public.__getitems__(chosen.tolist()).to(device.device)
            with torch.no_grad(), device.autocast():
                public.logits(network, batch)
    finally:
        hook.remove()
    pooled = torch.cat(vectors)
    with torch.no_grad():
        head.center.copy_(pooled.mean(0))
        head.spread.copy_((pooled.std(0) * pooled.shape[1] ** 0.5).clamp(min=1e-6))
