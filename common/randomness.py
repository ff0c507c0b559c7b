"""The one source of everything random that privacy rests on: a cryptographic stream of bits.

Gaussian noise, Poisson batches, noisy counts and client-level noise all draw from a `Stream`.  It
is AES-256 in counter mode (NIST SP 800-38A), computed by the `cryptography` package: whoever does
not know the key cannot tell its output from coin flips, however much of the output is known.  That
matters because a coordinator sees a partner's noise wherever a gradient is exactly 0; from a linear
generator such as the Mersenne twister it could then compute all other noise.

`SystemStream` takes a new key from the operating system each time it is made.  The streams of a
simulation, which repeats itself, are another class in another module
(`simulation.seeded_streams`) that a deployed process never imports.
"""

from __future__ import annotations

import secrets
from typing import Protocol

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

Words = npt.NDArray[np.uint64]
KEY_BYTES = 32
WORD_BYTES = 8


class Stream:
    """Pseudo-random 64-bit words from a 256-bit key that is used for nothing else.

    Raises ValueError when the key has another length.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a stream needs a key of {KEY_BYTES} bytes, got {len(key)}")
        # The counter starts at 0: with a key of its own no two streams share a block.
        counter = modes.CTR(bytes(algorithms.AES.block_size // 8))
        self._cipher = Cipher(algorithms.AES(key), counter).encryptor()

    def words(self, count: int) -> Words:
        """The next `count` words, uniform on [0, 2^64)."""
        return np.frombuffer(self._cipher.update(bytes(WORD_BYTES * count)), dtype=np.uint64)

    def integer(self) -> int:
        """A number that is uniform on [0, 2^63)."""
        return int(self.words(1)[0]) >> 1


class SystemStream(Stream):
    """A stream whose key comes from the operating system and is kept nowhere."""

    def __init__(self) -> None:
        super().__init__(secrets.token_bytes(KEY_BYTES))


class Streams(Protocol):
    """Where a partner's streams come from."""

    def __call__(self, purpose: str, key: str) -> Stream:
        """The stream for one use; `purpose` and `key` tell uses apart in a simulation."""


def system_streams(purpose: str, key: str) -> Stream:
    """A new `SystemStream` for every use, whatever it is for: the only kind in a deployment."""
    return SystemStream()


def chosen(stream: Stream, rate: float, count: int) -> npt.NDArray[np.int64]:
    """Positions of `count` rows of which each is chosen independently with probability `rate`.

    The probability is `rate` rounded *down* to a multiple of 2^-64, so that the sampling rate that
    is accounted for is never below the real one.  With a rate of 1 every row is chosen.
    """
    if rate >= 1:
        return np.arange(count, dtype=np.int64)
    return np.flatnonzero(stream.words(count) < np.uint64(int(rate * 2.0**64)))
