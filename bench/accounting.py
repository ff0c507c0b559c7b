"""Our PRV accountant beside the PLD accountant of `dp_accounting`: how tight, how fast?

    python -m bench.accounting --configurations 200

Draws sampling rates, noise multipliers, steps and deltas (Poisson-sampled Gaussian mechanisms, one
record added or removed), asks both accountants for epsilon, and prints how the answers and the
times compare.  Both give upper bounds, so the smaller answer is the tighter one.  Times are ratios
of two measurements in one process, with all caches emptied in between; start-up is the import of
each library in a new process.
"""

from __future__ import annotations

import argparse
import gc
import math
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.pld import PLDAccountant

from client.accounting import Segment, composition, epsilon, least_epsilon, rdp

T = TypeVar("T")
# What a partner's process does before it can train: import, and solve a run's noise.
OURS = """
from client.accounting import calibrate
calibrate(8.0, 1e-5, 0.1, 24)
"""
THEIRS = """
import client.accounting
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
from dp_accounting import calibrate_dp_mechanism
from dp_accounting.mechanism_calibration import ExplicitBracketInterval
from dp_accounting.pld import PLDAccountant
calibrate_dp_mechanism(
    PLDAccountant,
    lambda z: SelfComposedDpEvent(PoissonSampledDpEvent(0.1, GaussianDpEvent(z)), 24),
    8.0, 1e-5, ExplicitBracketInterval(0.3, 2.0), tol=1e-3,
)
"""
OUR_IMPORT = (
    "import client.accounting, opacus.accountants.analysis.prv, opacus.accountants.analysis.rdp"
)
THEIR_IMPORT = "import client.accounting, dp_accounting.pld"


@dataclass(frozen=True)
class Pair:
    """Both answers for one mechanism; `least` is a proven lower bound."""

    segment: Segment
    delta: float
    ours: float
    theirs: float
    least: float
    accountant: str
    our_seconds: float
    their_seconds: float


def configurations(count: int) -> list[tuple[Segment, float]]:
    """Mechanisms whose epsilon is between 0.01 and 50, so that somebody could mean them."""
    random = np.random.default_rng(0)
    drawn: list[tuple[Segment, float]] = []
    while len(drawn) < count:
        rate = 1.0 if random.random() < 0.1 else float(10 ** random.uniform(-4, -0.3))
        sigma = float(10 ** random.uniform(math.log10(0.4), 1.3))
        steps = int(10 ** random.uniform(0, 3.7))
        delta = float(10 ** random.uniform(-8, -4))
        segment = Segment(sigma, rate, steps)
        if 0.01 <= rdp.rdp_epsilon([segment], delta) <= 50:
            drawn.append((segment, delta))
    return drawn


def theirs(segment: Segment, delta: float) -> float:
    """Epsilon by the PLD accountant as it comes: connect-the-dots, intervals of 1e-4."""
    accountant = PLDAccountant()
    event = PoissonSampledDpEvent(segment.sample_rate, GaussianDpEvent(segment.noise_multiplier))
    accountant.compose(event, segment.steps)
    return float(accountant.get_epsilon(delta))


def ours(segment: Segment, delta: float) -> tuple[float, str]:
    """Epsilon by our accountant, without what it remembers."""
    for cached in (composition.bound, rdp._per_step):
        cached.cache_clear()
    answer = epsilon([segment], delta)
    return answer.value, answer.accountant


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """A result and the seconds that it took."""
    gc.collect()
    began = time.perf_counter()
    answer = work()
    return answer, time.perf_counter() - began


def compare(segment: Segment, delta: float) -> Pair:
    """Both accountants on one mechanism."""
    (value, name), our_seconds = timed(lambda: ours(segment, delta))
    answer, their_seconds = timed(lambda: theirs(segment, delta))
    least = least_epsilon([segment], delta)
    return Pair(segment, delta, value, answer, least, name, our_seconds, their_seconds)


def start_up(code: str) -> float:
    """The least seconds in which a new process runs `code`."""
    runs = (timed(lambda: subprocess.run([sys.executable, "-c", code], check=True)) for _ in "123")
    return min(seconds for _, seconds in runs)


def report(pairs: list[Pair]) -> None:
    """Print tightness and time in Markdown."""
    ratio = np.array([pair.theirs / pair.ours for pair in pairs])
    times = np.array([pair.their_seconds / pair.our_seconds for pair in pairs])
    by_prv = sum(pair.accountant == "prv" for pair in pairs)
    print(f"{len(pairs)} configurations; PRV gave our answer in {by_prv}.")
    print(f"PLD is tighter in {np.sum(ratio < 1)}, looser in {np.sum(ratio > 1)}.")
    print(f"Below our proven lower bound: {sum(p.theirs < p.least for p in pairs)}.")
    print(
        "\n| PLD over ours | least | median | 90 % | largest |\n| --- | ---: | ---: | ---: | ---: |"
    )
    for name, values in (("epsilon", ratio), ("seconds", times)):
        cells = [np.min(values), np.median(values), np.quantile(values, 0.9), np.max(values)]
        print(f"| {name} | " + " | ".join(f"{cell:.4g}" for cell in cells) + " |")
    total = sum(p.their_seconds for p in pairs) / sum(p.our_seconds for p in pairs)
    print(f"\nAll configurations: PLD takes {total:.3g} times as long.")
    for name, key in (("loosest", ratio), ("slowest", times)):
        worst = pairs[int(np.argmax(key))]
        print(f"PLD {name} at {worst.segment}, delta {worst.delta:.2g}: {np.max(key):.4g}.")
    imports = start_up(THEIR_IMPORT) / start_up(OUR_IMPORT)
    print(f"Start-up: PLD's import takes {imports:.2f} times as long,")
    print(f"import and noise of one run {start_up(THEIRS) / start_up(OURS):.2f} times.")


def main() -> int:
    """Compare, print, exit with 0."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--configurations", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=math.inf, help="stop after this long")
    asked = parser.parse_args()
    drawn = configurations(asked.configurations)
    # Imports and first calls are start-up, not work.
    compare(*drawn[0])
    pairs: list[Pair] = []
    until = time.monotonic() + asked.seconds
    for segment, delta in drawn:
        if time.monotonic() < until:
            pairs.append(compare(segment, delta))
    report(pairs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
