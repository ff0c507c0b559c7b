"""What a coordinator can compute from normal numbers that came from a Mersenne twister.

torch.normal draws 24-bit uniforms u from 32-bit words of MT19937 and makes 16 normals of each 16 of
them, by Box and Muller: places j and j + 8 of a block are r cos t and r sin t, with r^2 = -2 ln(1 -
u_j) and t = 2 pi u_{j+8}.  So the normals tell the leading bits of every word.

The words follow y[k+624] = y[k+397] + L(y[k], y[k+1]), linear over the integers modulo 2.  Some
sums of the leading bits of these four words are therefore always 0 (`relations`), whereas of other
noise each is 0 half of the time.  Each relation predicts a bit of the noise from noise before it.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bits = npt.NDArray[np.uint8]
WORD, N, M = 32, 624, 397
# The bits of a word that are read off: below 24 and not as low as rounding reaches.
SHOWN = range(10, 24)


def _temper(word: int) -> int:
    word ^= word >> 11
    word ^= (word << 7) & 0x9D2C5680
    word ^= (word << 15) & 0xEFC60000
    return (word ^ (word >> 18)) & 0xFFFFFFFF


def _next(first: int, second: int, middle: int) -> int:
    mixed = (first & 0x80000000) | (second & 0x7FFFFFFF)
    return middle ^ (mixed >> 1) ^ (0x9908B0DF if second & 1 else 0)


def _kernel(columns: Bits) -> Bits:
    """All v with v @ columns = 0 modulo 2, as the rows of a basis."""
    left = columns.copy()
    right = np.eye(len(columns), dtype=np.uint8)
    rank = 0
    for column in range(left.shape[1]):
        rows = np.flatnonzero(left[rank:, column]) + rank
        if len(rows) == 0:
            continue
        for matrix in (left, right):
            matrix[[rank, rows[0]]] = matrix[[rows[0], rank]]
        others = np.flatnonzero(left[:, column])
        others = others[others != rank]
        left[others] ^= left[rank]
        right[others] ^= right[rank]
        rank += 1
    return right[rank:]


@cache
def relations() -> Bits:
    """Rows [relations, 4 * shown] of bits of y[k], y[k+1], y[k+397], y[k+624] whose sum is 0."""
    shown = []
    for bit in range(3 * WORD):
        state = [1 << (bit - WORD * place) if bit // WORD == place else 0 for place in range(3)]
        words = [_temper(word) for word in (*state, _next(*state))]
        shown.append([word >> place & 1 for word in words for place in SHOWN])
    return _kernel(np.array(shown, dtype=np.uint8).T)


def leading_bits(normals: Floats) -> Bits:
    """The bits SHOWN of each word behind standard `normals` [16 n]: [16 n, shown]."""
    cosine, sine = np.moveaxis(normals.reshape(-1, 2, 8), 1, 0)
    first = 1 - np.exp(-(cosine**2 + sine**2) / 2)
    second = np.arctan2(sine, cosine) / (2 * np.pi) % 1.0
    uniform = np.stack([first, second], axis=1).reshape(-1)
    whole = (uniform * 2**24).astype(np.int64)
    return (whole[:, None] >> np.array(SHOWN) & 1).astype(np.uint8)


def agreement(normals: Floats) -> tuple[float, int]:
    """The share of predictions that come true, and how many were made; 1/2 is chance."""
    words = leading_bits(normals[: len(normals) // 16 * 16])
    count = len(words) - N
    four = np.concatenate([words[at : at + count] for at in (0, 1, M, N)], axis=1)
    held = (four @ relations().T & 1) == 0
    return float(held.mean()), held.size
