"""Keyed generators repeat themselves, and no two uses share one."""

from __future__ import annotations

import torch

from common import seeds


def test_keyed_streams() -> None:
    draws = [torch.randn(4, generator=seeds.torch_generator(1, *key)) for key in ("a", "a", "b")]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
