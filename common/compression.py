"""Update compression: half precision, or eight bits per value with stochastic rounding.

A partner compresses its update after clipping and noise.  That is post-processing, so the privacy
guarantee is the same.

``int8``: every block of BLOCK values is divided by its step s = max|x| / 127 and rounded up or down
at random, up with the probability of the fraction (stochastic rounding; Alistarh et al. 2017,
QSGD).  So E[decoded] = x; the error of each value is less than s, and its standard deviation at
most s / 2.

``float16``: each tensor is scaled into the normal range of float16, so that small updates do not
vanish, and rounded to nearest, with a relative error of at most 2^-11.

For a tensor NAME, a message has the array NAME in the small dtype, and NAME + SCALE in float32.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

BLOCK = 256
LEVELS = 127
SCALE = ":scale"


class EncodingError(ValueError):
    """A compressed update does not have the agreed form."""


def encode(
    tensors: Mapping[str, Tensor], compression: str, generator: torch.Generator
) -> dict[str, Tensor]:
    """Compress an update.

    Args:
        tensors: Finite float32 tensors by name.
        compression: A value of `train.compression`.
        generator: The source of randomness for the rounding of ``int8``.
    """
    if compression == "float32":
        return dict(tensors)
    small: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if compression == "float16":
            scale = tensor.abs().max().clamp_min(torch.finfo(torch.float32).tiny).reshape(1)
            values = (tensor / scale).half()
        else:
            values, scale = _to_int8(tensor, generator)
        small[name], small[name + SCALE] = values, scale
    return small


def _to_int8(tensor: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    blocks = _blocks(tensor.reshape(-1))
    scale = blocks.abs().amax(1) / LEVELS
    # A block of zeros stays zero whatever it is divided by.
    steps = blocks / scale.clamp_min(torch.finfo(torch.float32).tiny)[:, None]
    chance = torch.rand(blocks.shape, generator=generator)
    rounded = (steps + chance).floor().clamp(-LEVELS, LEVELS).to(torch.int8)
    return rounded.reshape(-1)[: tensor.numel()].view(tensor.shape), scale


def _blocks(flat: Tensor) -> Tensor:
    """``flat`` [d] as [blocks, BLOCK], filled up with zeros."""
    missing = -len(flat) % BLOCK
    return torch.nn.functional.pad(flat, (0, missing)).view(-1, BLOCK)


def decode(arrays: Mapping[str, Tensor], compression: str) -> dict[str, Tensor]:
    """Decompress an update that ``encode`` made: float32 tensors by name.

    Raises:
        EncodingError: A tensor has another dtype than agreed, or its scale is missing, has another
            shape, or is negative, infinite or NaN.
    """
    if compression == "float32":
        for name, tensor in arrays.items():
            if tensor.dtype != torch.float32:
                raise EncodingError(f"tensor {name!r:.100} has dtype {tensor.dtype}, not float32")
        return dict(arrays)
    expected = torch.float16 if compression == "float16" else torch.int8
    values = {name: tensor for name, tensor in arrays.items() if not name.endswith(SCALE)}
    scales = {name.removesuffix(SCALE) for name in arrays if name.endswith(SCALE)}
    if scales != set(values):
        wrong = sorted(scales ^ set(values))[0]
        raise EncodingError(f"tensor {wrong!r:.100} lacks its values or its scale")
    decoded: dict[str, Tensor] = {}
    for name, tensor in values.items():
        scale = arrays[name + SCALE]
        count = 1 if compression == "float16" else -(-tensor.numel() // BLOCK)
        if tensor.dtype != expected:
            raise EncodingError(f"tensor {name!r:.100} has dtype {tensor.dtype}, not {expected}")
        if scale.dtype != torch.float32 or tuple(scale.shape) != (count,):
            raise EncodingError(f"tensor {name!r:.100} has a scale of another form")
        if not bool((torch.isfinite(scale) & (scale >= 0)).all()):
            raise EncodingError(f"tensor {name!r:.100} has a scale that is no finite length")
        if compression == "float16":
            decoded[name] = tensor.float() * scale
        else:
            blocks = _blocks(tensor.reshape(-1).float()) * scale[:, None]
            decoded[name] = blocks.reshape(-1)[: tensor.numel()].view(tensor.shape)
    return decoded
