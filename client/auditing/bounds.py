"""From guesses about who took part to a lower bound on epsilon.

Two statistics, both one-sided tests of the claim "this was (epsilon, delta)-private":

* one run, many canaries (Steinke, Nasr, Jagielski, "Privacy auditing with one (1) training run",
  2023, arXiv:2305.08846, theorem 5.2): each of m canaries takes part with probability 1/2, all
  independently, and r guesses are made, v of them right;
* the rates of a membership test (Kairouz, Oh, Viswanath 2015): a private mechanism has
  TPR <= e^epsilon FPR + delta, and the same of their complements.

A bound holds with the stated confidence over the coins of the audit.
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


def rates_bound(
    hits: tuple[int, int], false_alarms: tuple[int, int], delta: float, confidence: float
) -> float:
    """Lower bound on epsilon from (successes, trials) among members and among others.

    Both rates are bounded at half of the error each, and so is either direction of the test.
    """
    each = 1.0 - (1.0 - confidence) / 4
    hit_low, _ = clopper_pearson(*hits, each)
    _, alarm_high = clopper_pearson(*false_alarms, each)

    def bound(more: float, less: float) -> float:
        return math.log((more - delta) / less) if more > delta and less > 0 else 0.0

    return max(bound(hit_low, alarm_high), bound(1 - alarm_high, 1 - hit_low), 0.0)
