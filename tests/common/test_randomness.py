"""The cryptographic stream: AES-CTR as another library computes it; Poisson draws from it."""

from __future__ import annotations

import numpy as np
import pytest
from Crypto.Cipher import AES
from scipy import stats

from common.randomness import KEY_BYTES, Stream, SystemStream, chosen, system_streams
from simulation.seeded_streams import SeededStream, SeededStreams


def test_equals_another_implementation() -> None:
    key = bytes(range(KEY_BYTES))
    cipher = AES.new(key, AES.MODE_CTR, nonce=b"", initial_value=0)
    stream = Stream(key)
    # Whatever the sizes of the parts, it is one stream.
    found = np.concatenate([stream.words(n) for n in (1, 2, 1000, 5)])
    assert found.tobytes() == cipher.encrypt(bytes(8 * 1008))


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Stream(bytes(16))


def test_system_streams_differ_and_seeded_ones_repeat() -> None:
    words = [SystemStream().words(4).tolist() for _ in range(2)]
    assert words[0] != words[1]
    one, other = system_streams("noise", "same"), system_streams("noise", "same")
    assert one.words(4).tolist() != other.words(4).tolist()
    north = SeededStreams(7, "north")
    assert north("noise", "1").words(4).tolist() == north("noise", "1").words(4).tolist()
    keyed = [
        north("noise", "1"),
        north("noise", "2"),
        north("batches", "1"),
        SeededStreams(7, "south")("noise", "1"),
        SeededStreams(8, "north")("noise", "1"),
    ]
    assert len({tuple(stream.words(2).tolist()) for stream in keyed}) == len(keyed)


class Fixed(Stream):
    def __init__(self, words: list[int]) -> None:
        self.fixed = np.array(words, dtype=np.uint64)

    def words(self, count: int) -> np.ndarray:
        return self.fixed[:count]


def test_the_sampling_rate_is_never_rounded_up() -> None:
    rate = 0.3
    threshold = int(rate * 2.0**64)
    assert threshold / 2**64 <= rate
    assert chosen(Fixed([threshold - 1, threshold, threshold + 1]), rate, 3).tolist() == [0]
    # Below the resolution nothing is chosen; with a rate of 1 everything is, whatever was drawn.
    assert chosen(Fixed([0, 0]), 1e-30, 2).tolist() == []
    assert chosen(Fixed([2**64 - 1] * 3), 1.0, 3).tolist() == [0, 1, 2]


def test_rows_are_chosen_independently_at_the_rate() -> None:
    stream, n = SeededStream(3), 200_000
    taken = chosen(stream, 0.1, n)
    assert stats.binomtest(len(taken), n, 0.1).pvalue > 1e-4
    gaps = np.diff(taken)
    assert stats.kstest(gaps - np.random.default_rng(0).random(len(gaps)),
                        _geometric_gap).pvalue > 1e-4  # fmt: skip


def _geometric_gap(x: np.ndarray) -> np.ndarray:
    """Distribution of a geometric number (rate 0.1) less a uniform one."""
    whole = np.floor(np.maximum(x, 0.0))
    below = 1 - 0.9**whole
    return np.where(x <= 0, 0.0, below + (x - whole) * 0.1 * 0.9**whole)
