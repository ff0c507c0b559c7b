"""From guesses about who took part to the least privacy of a Gaussian training.

The one-run audit of Mahloujifar, Melis and Chaudhuri, "Auditing f-Differential Privacy in One Run"
(2024, arXiv:2410.22235).  As in `auditing.bounds`, each of m canaries takes part by a fair
coin, r guesses are made, and v of them are right.  There the hypothesis is (epsilon, delta), one
point of the trade-off function between false and true positives; here it is the whole function, so
more guesses are too many, and the bound is larger.

What is assumed.  The hypothesis is a family: "this training is at least as private as Gaussian
releases of noise multiplier s, of which each record takes part with the known sampling rate".  The
guesses refute all s above some value, whatever the training really does.  The epsilon that is
reported is that of the family at this value.  So it refutes the claim that the noise is what the
accountant was told, and it bounds the epsilon of a training that belongs to the family.  The bound
of `auditing.bounds` assumes no family.

Why it holds.  Let W be the number of right guesses and i a guessed canary.  Given all other coins,
the event "guess i is right and W = w" under one value of coin i is, under the other value, "guess i
is wrong and W = w - 1".  A trade-off function F (the least false-positive rate for a true-positive
rate, convex) bounds one by the other; by Jensen's inequality, averaged over coins and canaries,

    (1/m) sum_{w >= j-1} (r - w) P[W = w]  >=  F( (1/m) sum_{w >= j} w P[W = w] )    for every j.

`least_mass` asks how much probability in all a distribution needs that meets these conditions
and has P[W >= v] = alpha.  More than 1 is impossible, so then P[W >= v] < alpha: a distribution
with P[W >= v] > alpha, scaled down to alpha, would still meet the conditions (F is convex and
F(0) = 0) with a total below 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import ndtr

from auditing.trade_off import TradeOff, gaussian, sampled_gaussian
from client.accounting import Segment, calibrate, least_epsilon

# Shares of the canaries that an audit may plan to guess, and the share where nothing is claimed.
SHARES = (1.0, 0.7, 0.5, 0.35, 0.25, 0.15, 0.1, 0.07, 0.05, 0.03, 0.02, 0.01)
UNPLANNED = 0.5
# If all guesses are right, the bound should be above the claim by this factor.
MARGIN = 1.03
# Noise multipliers within which a bound is searched, and when the search ends (relative).
_LEAST_NOISE, _MOST_NOISE = 1e-3, 1e6
_TOLERANCE = 1e-3
# A plan for hardly any noise: every guess is right.
_MOST_MU = 20.0


def least_mass(
    canaries: int, guesses: int, correct: int, alpha: float, trade_off: TradeOff
) -> float:
    """The least total probability, if P[W >= `correct`] is `alpha` and `trade_off` holds.

    From 1 upwards the exact number has no meaning, and the sum stops early.  The least is reached
    by a greedy choice: all of `alpha` lies at `correct` itself, and below it every count has only
    what the condition of the count above demands.  Moving probability to a smaller count makes
    true positives rarer and false ones more frequent and so relaxes all other conditions.

    Raises ValueError when the counts do not fit together.
    """
    if not 0 <= correct <= guesses <= canaries:
        raise ValueError(f"{correct} right of {guesses} guesses on {canaries} canaries")
    if guesses == 0:
        return alpha
    right = alpha * correct / canaries
    wrong = alpha * (guesses - correct) / canaries
    whole = guesses / canaries
    for count in range(correct - 1, -1, -1):
        needed = trade_off(min(right, 1.0))
        if needed <= wrong:
            break
        right += count / (guesses - count) * (needed - wrong)
        wrong = needed
        if right + wrong > whole:
            break
    return (right + wrong) / whole


def most_noise(
    canaries: int,
    guesses: int,
    correct: int,
    alpha: float,
    family: Callable[[float], TradeOff],
) -> float:
    """The noise multiplier that the true one is below, with confidence 1 - `alpha`.

    `family` gives the trade-off function of a noise multiplier; more noise must mean more privacy.
    Infinity when nothing was shown: not even a training that tells nothing is refuted.
    """

    def refuted(noise: float) -> bool:
        return least_mass(canaries, guesses, correct, alpha, family(noise)) > 1.0

    # Perfect privacy: as many false positives as true ones.
    if least_mass(canaries, guesses, correct, alpha, lambda power: power) <= 1.0:
        return math.inf
    high = 1.0
    while not refuted(high):
        if high >= _MOST_NOISE:
            return math.inf
        high *= 2
    low = high / 2
    while refuted(low):
        if low <= _LEAST_NOISE:
            return low
        low, high = low / 2, low
    while high / low > 1 + _TOLERANCE:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if refuted(middle) else (middle, high)
    return high


def planned_guesses(canaries: int, claimed: float | None, delta: float, alpha: float) -> int:
    """How many canaries to guess, chosen before the training from public numbers alone.

    It is the share of `SHARES` that shows the most of a Gaussian release of epsilon `claimed` at
    `delta` whose canaries do not hide behind one another, among those whose bound could exceed the
    claim at all.  If so few canaries show nothing of it, a release with less noise is planned for.
    Without a claim it is half of the canaries.
    """
    if claimed is None:
        return math.ceil(UNPLANNED * canaries)
    mu = 1.0 / calibrate(claimed, delta, 1.0, 1)

    def shows(guesses: int, correct: int) -> float:
        return 1.0 / most_noise(canaries, guesses, correct, alpha, lambda s: gaussian(1.0 / s))

    options = sorted({max(1, round(share * canaries)) for share in SHARES})
    able = [r for r in options if shows(r, r) > MARGIN * mu] or options
    while True:
        shown = {r: shows(r, math.floor(r * _accuracy(r / canaries, mu))) for r in able}
        best = max(able, key=lambda r: (shown[r], r))
        if shown[best] > 0 or mu > _MOST_MU:
            return best
        mu *= 1.5


def _accuracy(share: float, mu: float) -> float:
    """How many of the surest guesses are right, of scores N(+-mu / 2, 1): a share."""
    if share >= 1.0:
        return float(ndtr(mu / 2))

    def excess(threshold: float) -> float:
        return float(ndtr(mu / 2 - threshold) + ndtr(-mu / 2 - threshold)) - share

    threshold = brentq(excess, 0.0, mu / 2 + 40.0)
    return float(ndtr(mu / 2 - threshold)) / share


@dataclass(frozen=True)
class FDPAudit:
    """What the guesses came to under the hypothesis of Gaussian noise.

    With `confidence`, the noise multiplier is below `noise_multiplier_upper_bound` (None: nothing
    was shown), and so epsilon is not below `epsilon_lower_bound` at `delta`.
    """

    canaries: int
    guesses: int
    correct: int
    delta: float
    confidence: float
    noise_multiplier_upper_bound: float | None
    epsilon_lower_bound: float


def judge(
    values: npt.NDArray[np.float64],
    coins: npt.NDArray[np.bool_],
    guesses: int,
    rate: float,
    steps: int,
    delta: float,
    confidence: float,
) -> FDPAudit:
    """Guess the `guesses` surest of the `coins` [m] from the scores `values` [m]; bound epsilon.

    `guesses` must not depend on the scores.  The training took `steps` steps, in each of which a
    row takes part with probability `rate`.
    """
    surest = np.argsort(-np.abs(values), kind="stable")[:guesses]
    correct = int(((values > 0) == coins)[surest].sum())
    noise = most_noise(
        len(coins),
        guesses,
        correct,
        1.0 - confidence,
        lambda s: sampled_gaussian(s, rate, steps),
    )
    shown = math.isfinite(noise)
    epsilon = least_epsilon([Segment(noise, rate, steps)], delta) if shown else 0.0
    return FDPAudit(
        len(coins), guesses, correct, delta, confidence, noise if shown else None, epsilon
    )
