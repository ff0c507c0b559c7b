"""Parameters that a malicious coordinator sends in the place of a global model."""

from __future__ import annotations

import torch
from torch import Tensor

Parameters = dict[str, Tensor]
BIAS, WEIGHT = "head.classifier.bias", "head.classifier.weight"
CONSTANTS = ("center", "spread", "damping")
LARGEST = 3e38


def trained(start: Parameters) -> list[str]:
    """Names of the tensors that are trained, without the constants of the head."""
    return [name for name in start if not name.endswith(CONSTANTS)]


def filled(start: Parameters, value: float) -> Parameters:
    """Every trained number is `value`."""
    return {**start, **{name: torch.full_like(start[name], value) for name in trained(start)}}


def alternating(start: Parameters) -> Parameters:
    """The largest numbers with changing signs, so that infinities of both signs meet."""
    crafted = filled(start, LARGEST)
    for name in trained(start):
        crafted[name].view(-1)[::2] *= -1
    return crafted


def saturated(start: Parameters, logit: float = 200.0) -> Parameters:
    """The head answers "bad" with a probability of exactly 1: other rows have no gradient."""
    return {**start, BIAS: torch.tensor([logit, 0.0])}


def trap(start: Parameters) -> Parameters:
    """Saturated, and what gradient is left overflows: LoRA's A is 0, so B is huge and has no effect
    on the answer, but the gradient of A is a product with B."""
    changed = {}
    for name in start:
        if "lora_A" in name:
            changed[name] = torch.zeros_like(start[name])
        elif "lora_B" in name:
            changed[name] = torch.full_like(start[name], LARGEST)
    return saturated({**start, **changed})


def headless(start: Parameters) -> Parameters:
    """A head of zeros: no gradient reaches the encoder."""
    return {**start, WEIGHT: torch.zeros_like(start[WEIGHT]), BIAS: torch.zeros_like(start[BIAS])}


def _constants(start: Parameters, **values: float) -> Parameters:
    changed = {f"head.conditioning.{name}": value for name, value in values.items()}
    assert set(changed) <= set(start)
    return {**start, **{name: torch.full_like(start[name], v) for name, v in changed.items()}}


CRAFTED = {
    "honest": lambda start: start,
    "saturated": saturated,
    "saturated and otherwise zero": lambda start: saturated(filled(start, 0.0)),
    "only the secret row overflows": trap,
    "zero head": headless,
    "all zero": lambda start: filled(start, 0.0),
    "tiny": lambda start: filled(start, 1e-30),
    "huge": lambda start: filled(start, 1e30),
    "overflow": alternating,
    "infinite loss of one label": lambda start: {
        **start,
        BIAS: torch.tensor([LARGEST, -LARGEST]),
    },
    "features overflow": lambda start: _constants(start, spread=1e-38),
    "features are NaN": lambda start: _constants(start, center=LARGEST, damping=LARGEST),
}
