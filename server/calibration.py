"""Feature whitening: fit the head's input transform on public rows, before training begins."""

from __future__ import annotations

import torch

from common.device import Device
from common.examples.batch import Examples, by_length
from common.models.heads import TokenHead
from common.models.mean_pooled import MeanHead
from common.models.network import Network
from common.models.whitening import FeatureWhitening

CALIBRATION_TOKENS = 8192


def calibrate_head(network: Network, public: Examples, device: Device) -> None:
    """Fit the whitening of a mean or token head on unlabelled public rows, in place.

    It uses no private row and no label, so it costs no privacy.  A head of another kind is left as
    it is.
    """
    head = network.trained.head
    if not isinstance(head, MeanHead | TokenHead) or len(public) < 2:
        return
    assert isinstance(head.conditioning, FeatureWhitening)
    vectors = []
    hook = head.register_forward_pre_hook(lambda _, args: vectors.append(head.pool(*args)))
    try:
        for chosen in by_length(public.lengths, CALIBRATION_TOKENS):
            batch = public.__getitems__(chosen.tolist()).to(device)
            with torch.no_grad(), device.autocast():
                public.logits(network, batch)
    finally:
        hook.remove()
    head.conditioning.fit(torch.cat(vectors))
