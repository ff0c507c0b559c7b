"""From guesses about who took part to a lower bound on epsilon.

One run, many canaries (Steinke, Nasr, Jagielski, "Privacy auditing with one (1) training run",
2023, arXiv:2305.08846, theorem 5.2): each of m canaries takes part with probability 1/2, all
independently, and r guesses are made, v of them right.  Under (epsilon, delta)-DP many right
guesses are improbable; a bound holds with the stated confidence over the coins of the audit.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import beta, binom

LARGEST_EPSILON = 30.0
_HALVINGS = 50


def p_value(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """The most likely that `correct` or more of `guesses` are right under (epsilon, delta)-DP.

    With q = e^epsilon / (1 + e^epsilon) and W ~ Binomial(guesses, q) it is
    P[W >= v] + 2 m delta max_i P[v - i <= W < v] / i.

    Raises ValueError when the counts do not fit together.
    """
    if not 0 <= correct <= guesses <= canaries:
        raise ValueError(f"{correct} right of {guesses} guesses on {canaries} canaries")
    q = 1.0 / (1.0 + math.exp(-epsilon))
    tail = float(binom.sf(correct - 1, guesses, q))
    if correct == 0 or delta == 0:
        return min(tail, 1.0)
    below = np.cumsum(binom.pmf(np.arange(correct - 1, -1, -1), guesses, q))
    worst = float((below / np.arange(1, correct + 1)).max())
    return min(tail + 2 * canaries * delta * worst, 1.0)


def one_run_bound(
    canaries: int, guesses: int, correct: int, delta: float, confidence: float
) -> float:
    """Epsilon that the true one is not below, with `confidence`; 0 when nothing was shown.

    What is private for a smaller epsilon is private for a larger one, so a rejected value rejects
    all below it.
    """
    level = 1.0 - confidence
    if p_value(canaries, guesses, correct, 0.0, delta) > level:
        return 0.0
    low, high = 0.0, LARGEST_EPSILON
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if p_value(canaries, guesses, correct, middle, delta) <= level:
            low = middle
        else:
            high = middle
    return low


def shared_confidence(confidence: float, bounds: int) -> float:
    """The confidence of each of so many `bounds` that makes all hold together with `confidence`.

    Each may err with an equal share of the probability of error (Bonferroni), whatever they have
    in common.
    """
    return 1.0 - (1.0 - confidence) / max(bounds, 1)


def clopper_pearson(successes: int, trials: int, confidence: float) -> tuple[float, float]:
    """Exact one-sided bounds of a probability: it is above the first, and below the second, each
    with `confidence`."""
    level = 1.0 - confidence
    low = float(beta.ppf(level, successes, trials - successes + 1)) if successes else 0.0
    high = (
        float(beta.ppf(confidence, successes + 1, trials - successes))
        if successes < trials
        else 1.0
    )
    return low, high
