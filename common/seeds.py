"""Random generators keyed by what they are for, so that no two uses share a stream.

A key such as ``(seed, "sampling", round)`` gives the same stream on every machine and after every
restart.  Nothing here may seed privacy noise in deployment: see `system_generator`.
"""

from __future__ import annotations

import hashlib
import secrets

import numpy as np
import torch


def derive(seed: int, *key: str | int) -> int:
    """A 63-bit seed from a base seed and a key (SHA-256, stable over versions and machines)."""
    text = "/".join([str(seed), *(str(part) for part in key)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


CPU = torch.device("cpu")
# Where the 624 words of the Mersenne twister lie in the state of a CPU generator, eight bytes each.
MT_OFFSET, MT_WORDS = 24, 624


def torch_generator(seed: int, *key: str | int, device: torch.device = CPU) -> torch.Generator:
    """A generator for `key` that draws on `device`."""
    return torch.Generator(device).manual_seed(derive(seed, *key))


def numpy_generator(seed: int, *key: str | int) -> np.random.Generator:
    """A numpy generator for `key`."""
    return np.random.default_rng(derive(seed, *key))


def system_generator(device: torch.device = CPU) -> torch.Generator:
    """A generator seeded by the operating system: the only kind that may draw deployed noise.

    On the CPU `manual_seed` keeps 32 bits of its seed, few enough to try them all, so the whole
    state of the Mersenne twister is filled instead.
    """
    generator = torch.Generator(device).manual_seed(secrets.randbits(63))
    if device.type == "cpu":
        state = generator.get_state()
        words = np.frombuffer(secrets.token_bytes(4 * MT_WORDS), dtype=np.uint32).astype(np.int64)
        state[MT_OFFSET : MT_OFFSET + 8 * MT_WORDS] = torch.from_numpy(words).view(torch.uint8)
        generator.set_state(state)
    return generator
