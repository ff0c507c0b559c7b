"""Keyed streams repeat; the system's streams do not, and hold more than 32 bits of chance."""

from __future__ import annotations

import pytest
import torch

from common import seeds


def test_keyed_streams() -> None:
    draws = [torch.randn(4, generator=seeds.torch_generator(1, *key)) for key in ("a", "a", "b")]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_system_streams_differ_under_one_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeds.secrets, "randbits", lambda bits: 7)
    first, second = (torch.randn(100_000, generator=seeds.system_generator()) for _ in range(2))
    assert not torch.equal(first, second)
    for draw in (first, second):
        assert draw.mean().item() == pytest.approx(0.0, abs=0.02)
        assert draw.std().item() == pytest.approx(1.0, abs=0.02)
