"""Random generators keyed by what they are for, so that no two uses share a stream.

A key such as ``(seed, "sampling", round)`` gives the same stream on every machine and after every
restart.  Nothing that privacy rests on is drawn from these: see `common.randomness`.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def derive(seed: int, *key: str | int) -> int:
    """A 63-bit seed from a base seed and a key (SHA-256, stable over versions and machines)."""
    text = "/".join([str(seed), *(str(part) for part in key)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def torch_generator(seed: int, *key: str | int) -> torch.Generator:
    """A generator for `key`."""
    return torch.Generator().manual_seed(derive(seed, *key))


def numpy_generator(seed: int, *key: str | int) -> np.random.Generator:
    """A numpy generator for `key`."""
    return np.random.default_rng(derive(seed, *key))
