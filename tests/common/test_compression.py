"""Smaller updates: unbiased, bounded in error, and refused when malformed."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from common.compression import BLOCK, LEVELS, SCALE, EncodingError, decode, encode


def tensors(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "a": torch.randn(7, 113, generator=generator) * 1e-4,
        "b": torch.cat([torch.zeros(BLOCK), torch.randn(3, generator=generator) * 50]),
    }


def test_float32_is_left_alone() -> None:
    given = tensors()
    sent = encode(given, "float32", torch.Generator())
    assert all(torch.equal(decode(sent, "float32")[name], given[name]) for name in given)


def test_float16_keeps_eleven_bits_of_small_and_large_updates() -> None:
    given = tensors()
    got = decode(encode(given, "float16", torch.Generator()), "float16")
    for name, tensor in given.items():
        # Relative error of a half in its normal range, and what is below 2^-14 of the largest.
        allowed = 2.0**-11 * tensor.abs() + 2.0**-25 * tensor.abs().max()
        assert bool(((got[name] - tensor).abs() <= allowed * 1.001).all())


def test_int8_is_off_by_less_than_a_step_and_by_nothing_on_average() -> None:
    given = tensors()
    generator = torch.Generator().manual_seed(1)
    repeats = 400
    total = {name: torch.zeros_like(tensor) for name, tensor in given.items()}
    for _ in range(repeats):
        got = decode(encode(given, "int8", generator), "int8")
        for name, tensor in given.items():
            flat = torch.nn.functional.pad(tensor.reshape(-1), (0, -tensor.numel() % BLOCK))
            step = (flat.view(-1, BLOCK).abs().amax(1) / LEVELS).repeat_interleave(BLOCK)
            step = step[: tensor.numel()].view(tensor.shape)
            assert bool(((got[name] - tensor).abs() <= step * 1.0001).all())
            total[name] += (got[name] - tensor) / step.clamp_min(1e-30)
    for error in total.values():
        # In steps: a value's standard deviation is at most 1/2, and 6 of them never happen.
        assert float(error.abs().max()) / repeats <= 6 * 0.5 / math.sqrt(repeats)
        assert abs(float(error.mean())) / repeats <= 6 * 0.5 / math.sqrt(repeats * error.numel())


def test_an_update_of_int8_is_a_quarter_and_of_float16_half_as_large() -> None:
    def size(sent: dict[str, Tensor]) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in sent.values())

    given = {"a": torch.randn(1000, 384)}
    whole = size(given)
    assert size(encode(given, "int8", torch.Generator())) <= 0.255 * whole
    assert size(encode(given, "float16", torch.Generator())) <= 0.501 * whole


@pytest.mark.parametrize("encoding", ["float16", "int8"])
def test_what_is_malformed_is_refused(encoding: str) -> None:
    good = encode(tensors(), encoding, torch.Generator())
    scale = good["a" + SCALE]
    wrong: list[dict[str, Tensor]] = [
        {**good, "a": good["a"].float()},
        {**good, "a" + SCALE: torch.cat([scale, scale])},
        {**good, "a" + SCALE: scale.double()},
        {**good, "a" + SCALE: -scale},
        {**good, "a" + SCALE: scale * math.nan},
        {**good, "a" + SCALE: scale * math.inf},
        {**good, "c" + SCALE: scale},
        {name: tensor for name, tensor in good.items() if name != "a" + SCALE},
        {**tensors()},
    ]
    for arrays in wrong:
        with pytest.raises(EncodingError):
            decode(arrays, encoding)
