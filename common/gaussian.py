"""Gaussian noise rounded to whole numbers, without an error of floating point in its distribution.

`rounded_gaussian` returns round(s X) for X ~ N(0, 1) over the *real* numbers.  Why that is enough:
for a whole number k, k + round(s X) = round(k + s X), so that noise added to a vector of whole
numbers is a function of the real Gaussian mechanism's output (post-processing), and has its
(epsilon, delta) exactly, with every accountant's bound.  Adding floating-point noise to a
floating-point sum is no such function: its low bits tell the sum (Mironov, "On significance of the
least significant bits for differential privacy", 2012).

How a draw is made.  X = +-Phi^-1(U), for a fair sign and U uniform on the real interval [0, 1/2).
The first 63 bits of U give the whole number in float64, together with a bound of its error.  Where
the bound does not exclude the neighbouring number (once in a million draws or less), further bits
of U are drawn and the boundary between the two numbers is computed by `mpmath` to more digits than
bits were drawn, until they are apart.  So each draw has exactly the stated distribution, given
uniform bits and that `scipy.special.ndtri` has a relative error below 2^-45 (Cephes states 2^-50;
the tests compare it with `mpmath`).
"""

from __future__ import annotations

import mpmath
import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from common.randomness import Stream, Words

Floats = npt.NDArray[np.float64]
# Draws at a time: what a block needs stays in a processor's cache.
BLOCK = 1 << 14
# The largest scale: the noise, and a sum of as many units, are then exact in float64.
LARGEST_SCALE = 2.0**46
_BITS = 63
_NDTRI_ERROR = 2.0**-45
_WORD_BITS = 64
# mpmath works with this many bits more than are known of U.
_GUARD_BITS = 128
# Below this many units the interval of U is too wide for the bound of the error.
FEWEST = 8


def rounded_gaussian(stream: Stream, scale: float, count: int) -> Floats:
    """`count` independent draws of round(scale * X), X ~ N(0, 1), as whole numbers in float64.

    Raises ValueError when the scale is negative, not finite or above 2^46.
    """
    if not 0 <= scale <= LARGEST_SCALE:
        raise ValueError(f"the scale of rounded noise must be in [0, 2^46], got {scale}")
    drawn = np.empty(count)
    for start in range(0, count, BLOCK):
        part = drawn[start : start + BLOCK]
        part[:] = _block(stream, scale, stream.words(len(part)))
    return drawn


def _block(stream: Stream, scale: float, words: Words) -> Floats:
    """One draw from each of `words`, with more words from `stream` where one does not suffice."""
    known = (words >> np.uint64(1)).astype(np.float64)
    # The middle of the interval in which U lies.
    size = -ndtri((known + 0.5) * 2.0 ** -(_BITS + 1))
    exact = size * scale
    whole = np.rint(exact)
    # |dx| = |du| / phi(x) and u / phi(x) <= sqrt(pi / 2), so a relative error r of u moves x by at
    # most 1.2534 log(1 / (1 - r)).  r is at most 2^-52 by the conversion, which the first term
    # holds too, and 0.5 / (known + 0.5) by the width of the interval; from FEWEST on that is at
    # most 1 / 17, and 3 / (known + 1) is more than its effect.  Below, nothing is claimed.
    error = scale * (_NDTRI_ERROR * (1.0 + size) + 3.0 / (known + 1.0))
    close = 0.5 - np.abs(exact - whole) <= error
    doubtful = np.flatnonzero(close | (known < FEWEST))
    for index in doubtful:
        whole[index] = _decided(stream, scale, int(words[index] >> np.uint64(1)))
    signed: Floats = np.where(words & np.uint64(1), -whole, whole)
    return signed


def _decided(stream: Stream, scale: float, known: int) -> float:
    """round(scale |X|) for U in [known, known + 1) 2^-64."""
    uniform = _Uniform(stream, known)
    # The first comparison is with a guess that is right but for a few units, however far in the
    # tail U lies: 64 more bits leave nothing to guess that matters at any scale that is allowed.
    uniform.extend()
    whole = uniform.guess(scale)
    while uniform.below_tail(2 * whole + 1, scale):
        whole += 1
    while whole > 0 and not uniform.below_tail(2 * whole - 1, scale):
        whole -= 1
    return float(whole)


class _Uniform:
    """A real number U in [0, 1/2) of which as many bits are drawn as comparisons need."""

    def __init__(self, stream: Stream, known: int) -> None:
        self.stream, self.known, self.bits = stream, known, _BITS + 1

    def extend(self) -> None:
        """Draw another 64 bits."""
        self.known = (self.known << _WORD_BITS) | int(self.stream.words(1)[0])
        self.bits += _WORD_BITS

    def guess(self, scale: float) -> int:
        """round(scale |X|), but for what the bits that are not drawn yet may change."""
        with mpmath.workprec(self.bits + _GUARD_BITS):
            middle = (mpmath.mpf(self.known) + 0.5) / mpmath.mpf(2) ** self.bits
            return int(mpmath.nint(mpmath.sqrt(2) * mpmath.erfinv(1 - 2 * middle) * scale))

    def below_tail(self, halves: int, scale: float) -> bool:
        """Whether U < Phi(-b) for the boundary b = halves / (2 scale), that is, whether |X| > b."""
        while True:
            with mpmath.workprec(self.bits + _GUARD_BITS):
                # Within this precision: a boundary in float64 would be another boundary.
                bound = mpmath.mpf(halves) / 2 / mpmath.mpf(scale)
                tail = mpmath.erfc(bound / mpmath.sqrt(2)) / 2 * mpmath.mpf(2) ** self.bits
                if self.known + 1 <= tail - mpmath.mpf(2) ** -16:
                    return True
                if self.known >= tail + mpmath.mpf(2) ** -16:
                    return False
            self.extend()
