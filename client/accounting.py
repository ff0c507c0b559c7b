"""How much privacy a sequence of noisy releases costs, and how much noise a budget needs.

Everything that this project releases under record-level differential privacy is a Poisson-sampled
Gaussian mechanism: DP-SGD steps with sampling rate q < 1, and noisy metrics as its case q = 1.  So
one description, :class:`Segment`, serves both and they compose in one accountant.

Two accountants are run and compared:

* PRV: numerical composition of privacy loss random variables (Gopi, Lee, Wutschitz, "Numerical
  Composition of Differential Privacy", 2021, arXiv:2106.02848), on Opacus' building blocks.
  Opacus composes only the direction in which a record is *removed*.  That the other direction is
  never worse is proven for one step, not for a composition (Lebeda, Regehr, Kamath, Steinke,
  "Avoiding Pitfalls for Privacy Accounting of Subsampled Mechanisms under Composition", 2024), so
  both are composed here and the larger result counts.
* RDP: Rényi differential privacy of the sampled Gaussian (Mironov, Talwar, Zhang, 2019,
  arXiv:1908.10530), converted as in Balle et al., 2020 (arXiv:1905.09982, theorem 21).

What may be chosen on the way.  Both bounds hold for adaptive composition: each mechanism may
depend on the outputs of those before it (its query, the model that it starts from), as long as its
noise multiplier, sampling rate and steps were fixed before the first output.  Neither the
composition of privacy curves nor the minimum over Rényi orders is proven where these numbers
themselves are chosen after looking at outputs ("fully adaptive" composition, Rogers et al. 2016):
stopping where composed curves reach a limit is then not private in general.  A partner's lifetime
limit over several runs is of that kind; `client/lifetime.py` holds the rule that is proven for it.

Both give upper bounds; the smaller one that is trustworthy is reported.  Values never lie
below the true epsilon: PRV's slack of delta / 1000 covers the floating-point error of its Fourier
transforms down to delta = 1e-10, and below that RDP is used.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import numpy.typing as npt
from scipy.fft import next_fast_len
from scipy.optimize import brentq
from scipy.special import gammaln, logsumexp, ndtr, xlog1py, xlogy

from common.errors import UserError
from common.refusals import Reason, Refused

if TYPE_CHECKING:
    # Opacus takes over a second to import, and whoever reads a policy computes nothing.
    from opacus.accountants.analysis.prv import DiscretePRV, Domain

Array = npt.NDArray[np.float64]

# Rényi orders: dense where training lies, sparse and far for the very noisy and the nearly exact.
_WHOLE_ORDERS = (*range(2, 64), 64, 72, 80, 96, 112, 128, 160, 192, 256, 384, 512)
# These are slow to evaluate and matter only for a large epsilon.
_FRACTIONAL_ORDERS = (
    *(1.01, 1.02, 1.05, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9),
    *(2.25, 2.5, 2.75, 3.5, 4.5),
)
_ORDERS: tuple[float, ...] = (*_WHOLE_ORDERS, *_FRACTIONAL_ORDERS)
# The PRV's proven error, relative to epsilon: added to its estimate, so also what it over-counts.
_RELATIVE_ERROR = 0.002
_LARGEST_MESH = 2**20
# exp() of the privacy loss must not overflow: Opacus would then return far too small an epsilon.
_LARGEST_LOSS = 600.0
_SMALLEST_PRV_DELTA = 1e-10
# privacy_profile() is exact to a thousandth of this.
_PROFILE_DELTA = 1e-3
# Of a privacy loss's mean: no more than Opacus' own integration promises for each of its intervals.
_MEAN_TOLERANCE = 1.5e-8
# calibrate() stops when the noise multiplier is this close above the smallest admissible one, and
# aims this far below the target, so that rounding between nearly equal compositions (the last
# rounds of a run, reserved one by one) never exceeds a target that the whole run meets.
_SIGMA_TOLERANCE = 1e-3
_TARGET_MARGIN = 5e-4
_LARGEST_SIGMA = 1e6


class BudgetExceeded(Refused):
    """A privacy budget does not allow what was asked; nothing of it was done or reserved.

    `detail` says in full what is spent and what is left: for the partner's own log and ledger
    alone, because the number of records or other runs could be inferred from it.
    """

    def __init__(self, detail: str, reason: Reason = Reason.BUDGET, key: str = "") -> None:
        super().__init__(reason, detail, key)
        self.detail = detail


@dataclass(frozen=True, order=True)
class Segment:
    """``steps`` runs of the Poisson-sampled Gaussian mechanism, add/remove one record.

    ``noise_multiplier`` is the noise's standard deviation over the L2 sensitivity of the sum that
    is released (0 means no noise, so no privacy); ``sample_rate`` is the probability with which
    each record takes part in a step, independently of all others.  A noisy metrics release is the
    case ``sample_rate=1``: the plain Gaussian mechanism.

    Assumes Poisson sampling: batches of a fixed size are *not* covered by this bound.

    Raises:
        ValueError: if a value is outside its range.
    """

    noise_multiplier: float
    sample_rate: float
    steps: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.noise_multiplier) and self.noise_multiplier >= 0):
            raise ValueError(f"noise_multiplier is {self.noise_multiplier}, not a number >= 0")
        if not 0 <= self.sample_rate <= 1:
            raise ValueError(f"sample_rate is {self.sample_rate}, not between 0 and 1")
        if self.steps != int(self.steps) or self.steps < 0:
            raise ValueError(f"steps is {self.steps}, not a whole number >= 0")


@dataclass(frozen=True)
class Budget:
    """The most that may be spent: (epsilon, delta) differential privacy in all."""

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        if not self.epsilon > 0:
            raise ValueError(f"epsilon is {self.epsilon}, not above 0")
        _check_delta_range(self.delta)


@dataclass(frozen=True)
class Epsilon:
    """An upper bound on epsilon and where it comes from.

    ``value`` is the bound to use; ``accountant`` names the one that gave it; ``prv`` is None when
    that accountant could not be used, and ``note`` then says why.
    """

    value: float
    accountant: Literal["prv", "rdp"]
    prv: float | None
    rdp: float
    note: str = ""


def check_delta(delta: float, records: int) -> None:
    """Refuse a delta that would allow publishing whole records.

    A mechanism that publishes each record with probability delta is (0, delta)-private, so delta
    must be below one over the number of records.  The message does not tell that number.

    Raises:
        UserError: if delta is not below 1 / records.
    """
    _check_delta_range(delta)
    if delta * records >= 1:
        raise UserError(
            f"delta {delta:g} is not below 1 / number of training records at this partner: "
            "ask for a smaller delta"
        )


def merge(segments: Iterable[Segment]) -> tuple[Segment, ...]:
    """The same composition with as few segments as possible, in a canonical order.

    Equal (noise multiplier, sampling rate) add their steps.  All plain Gaussians (rate 1) become
    one step, exactly: k Gaussians of noise multipliers s_i compose to a single one of
    1 / sqrt(sum 1 / s_i^2) (Dong, Roth, Su, "Gaussian Differential Privacy", 2019).
    """
    steps: dict[tuple[float, float], int] = {}
    for segment in segments:
        if segment.steps > 0 and segment.sample_rate > 0:
            key = (float(segment.noise_multiplier), float(segment.sample_rate))
            steps[key] = steps.get(key, 0) + int(segment.steps)
    gaussians = sorted((s, k) for (s, q), k in steps.items() if q == 1.0)
    merged = [Segment(s, q, k) for (s, q), k in steps.items() if q < 1.0]
    if gaussians:
        if gaussians[0][0] == 0:
            merged.append(Segment(0.0, 1.0, 1))
        else:
            precision = math.fsum(k / s**2 for s, k in gaussians)
            merged.append(Segment(1 / math.sqrt(precision), 1.0, 1))
    return tuple(sorted(merged))


def epsilon(segments: Sequence[Segment], delta: float) -> Epsilon:
    """Upper bound on the epsilon, at ``delta``, of all ``segments`` composed.

    Each mechanism may depend on the outputs before it, but the segments themselves must not: see
    the module, and `client/lifetime.py` for segments that were chosen on the way.

    PRV is used unless it fails on its discretisation, is not finite, or contradicts RDP (RDP is an
    upper bound, so PRV's proven lower end may not lie above it); then RDP, and ``note`` says so.
    No segments cost 0; a segment without noise costs infinity.

    Raises:
        ValueError: if delta is not between 0 and 1.
    """
    _check_delta_range(delta)
    return _epsilon(merge(segments), float(delta))


def least_epsilon(segments: Sequence[Segment], delta: float) -> float:
    """Lower bound on the epsilon, at ``delta``, of all ``segments`` composed: PRV's proven end.

    0 where PRV cannot tell; infinity for a segment without noise.  Audits need it: what they
    report must not lie above the truth, and :func:`epsilon` never lies below it.

    Raises:
        ValueError: if delta is not between 0 and 1.
    """
    _check_delta_range(delta)
    merged = merge(segments)
    if any(segment.noise_multiplier == 0 for segment in merged):
        return math.inf
    if not merged:
        return 0.0
    try:
        lower, _ = _prv(merged, delta, _rdp(merged, delta))
    except (ArithmeticError, ValueError, RuntimeError, IndexError, MemoryError):
        return 0.0
    return max(lower, 0.0) if math.isfinite(lower) else 0.0


def privacy_profile(segments: Sequence[Segment], epsilons: Array) -> Array:
    """Upper bounds on the delta of all ``segments`` composed, one for each of ``epsilons`` >= 0.

    By PRV, for whichever direction (a record removed or added) has the larger delta.  They exceed
    the truth by about a millionth, so they serve where delta is not small.

    Raises:
        ArithmeticError: if PRV fails on its discretisation, as it does with hardly any noise.
    """
    merged = merge(segments)
    if any(segment.noise_multiplier == 0 for segment in merged):
        return np.ones(len(epsilons))
    if not merged:
        return np.zeros(len(epsilons))
    delta_error = _PROFILE_DELTA / 1000
    rough = _rdp(merged, _PROFILE_DELTA)
    try:
        composed, error = _both_directions(merged, delta_error, _RELATIVE_ERROR * rough)
    except (ValueError, RuntimeError, IndexError, MemoryError) as failure:
        raise ArithmeticError(f"PRV failed: {failure}") from failure
    deltas = np.max([_deltas(prv, epsilons - error) for prv in composed], axis=0) + delta_error
    if not np.isfinite(deltas).all():
        raise ArithmeticError("PRV is not finite")
    return cast(Array, np.clip(deltas, 0.0, 1.0))


def _deltas(prv: DiscretePRV, epsilons: Array) -> Array:
    """E[(1 - exp(epsilon - loss))+] of the discretised loss, for each epsilon."""
    losses, masses = np.asarray(prv.domain.ts, np.float64), np.asarray(prv.pmf, np.float64)
    positive = losses > float(np.min(epsilons))
    losses, masses = losses[positive], masses[positive]
    above = np.append(np.cumsum(masses[::-1])[::-1], 0.0)
    weighted = np.append(np.cumsum((masses * np.exp(-losses))[::-1])[::-1], 0.0)
    first = np.searchsorted(losses, epsilons, side="right")
    return cast(Array, above[first] - np.exp(epsilons) * weighted[first])


def rdp_epsilon(segments: Sequence[Segment], delta: float) -> float:
    """Upper bound by RDP alone: looser than :func:`epsilon` and much faster."""
    _check_delta_range(delta)
    return _rdp(merge(segments), float(delta))


def renyi(segments: Sequence[Segment], order: float) -> float:
    """Rényi divergence at one ``order`` of all ``segments`` composed; infinite without noise."""
    return float(_rdp_curve(merge(segments), (order,))[0])


def worst_rdp_epsilon(groups: Sequence[Sequence[Sequence[Segment]]], delta: float) -> float:
    """Upper bound on the epsilon of a record that met one composition of each group.

    Which one it met is not known: order by order the worst of each group is added up, which bounds
    every choice (RDP composes by addition; Mironov, "Renyi Differential Privacy", 2017).
    """
    _check_delta_range(delta)
    total: Array = np.zeros(len(_ORDERS))
    for candidates in groups:
        curves = [_rdp_curve(merge(segments), _ORDERS) for segments in candidates]
        total = total + np.max(curves, axis=0) if curves else total
    return _rdp_to_epsilon(total, _ORDERS, delta)[0] if np.any(total > 0) else 0.0


def calibrate(
    target_epsilon: float,
    delta: float,
    sample_rate: float,
    steps: int,
    spent: Sequence[Segment] = (),
    *,
    dataset: str = "",
) -> float:
    """Smallest noise multiplier that keeps ``spent`` plus the new steps within the target.

    The result lies at most 0.1 % above the smallest one for which the reported epsilon is below
    0.9995 of the target, and never exceeds the target.  ``dataset`` is for the partner's own log.

    Raises:
        BudgetExceeded: if nothing is left, or no noise multiplier up to a million is enough.
        ValueError: if an argument is outside its range.
    """
    _check_delta_range(delta)
    if not target_epsilon > 0:
        raise ValueError(f"target epsilon is {target_epsilon}, not above 0")
    if steps < 1 or not 0 < sample_rate <= 1:
        raise ValueError(f"nothing to calibrate: sample rate {sample_rate}, {steps} steps")
    try:
        return _calibrate(
            float(target_epsilon), float(delta), float(sample_rate), int(steps), merge(spent)
        )
    except BudgetExceeded as error:
        if not dataset:
            raise
        detail = f"data set {dataset!r}: {error.detail}"
        raise BudgetExceeded(detail, error.reason, error.key) from None


@lru_cache(maxsize=256)
def _calibrate(
    target: float, delta: float, rate: float, steps: int, spent: tuple[Segment, ...]
) -> float:
    already = _epsilon(spent, delta).value
    if already >= target:
        raise BudgetExceeded(
            f"nothing is left of the budget: epsilon {already:.4g} of {target:.4g} is spent"
        )
    goal = target * (1 - _TARGET_MARGIN)

    def composed(sigma: float) -> tuple[Segment, ...]:
        return merge((*spent, Segment(sigma, rate, steps)))

    def enough_by_rdp(sigma: float) -> bool:
        curve = _rdp_curve(composed(sigma), _WHOLE_ORDERS)
        return _rdp_to_epsilon(curve, _WHOLE_ORDERS, delta)[0] <= goal

    # By RDP first: cheap, and its answer is an upper end, because the reported epsilon is at most
    # RDP's.
    high = _upper_bracket(enough_by_rdp)
    if high is not None:
        low = high / 2
        while enough_by_rdp(low):
            low, high = low / 2, low
        while high / low > 1.01:
            middle = math.sqrt(low * high)
            low, high = (low, middle) if enough_by_rdp(middle) else (middle, high)
    else:
        high = _upper_bracket(lambda sigma: _epsilon(composed(sigma), delta).value <= goal)
    if high is None:
        raise BudgetExceeded(
            f"epsilon {target:.4g} cannot be met: {already:.4g} of it is spent, and "
            f"{steps} more steps at sampling rate {rate:.4g} need more noise than is useful; "
            "ask for a larger epsilon or fewer steps",
            Reason.TOO_MUCH_NOISE,
            "privacy.epsilon",
        )
    return _tighten(lambda sigma: _epsilon(composed(sigma), delta).value, high, goal)


def _upper_bracket(enough: Callable[[float], bool]) -> float | None:
    """The first power of four from 1/4 to a million that is ``enough`` noise, or None."""
    sigma = 0.25
    while sigma <= _LARGEST_SIGMA:
        if enough(sigma):
            return sigma
        sigma *= 4
    return None


def _tighten(spends: Callable[[float], float], high: float, goal: float) -> float:
    """Smallest sigma with ``spends(sigma) <= goal``, from ``high``, which satisfies it.

    Brent's method on (log sigma, log epsilon), which is nearly straight, so that few evaluations
    are needed; the root is then moved to the safe side.
    """

    def excess(log_sigma: float) -> float:
        spent = spends(math.exp(log_sigma))
        return math.log(min(max(spent, 1e-12), 1e12) / goal)

    upper = math.log(high)
    lower, step, at_upper = upper - 0.03, 0.03, excess(upper)
    while (at_lower := excess(lower)) <= 0:
        # Extrapolate to a little beyond the root.
        slope = max((at_lower - at_upper) / step, 1e-3)
        upper, at_upper = lower, at_lower
        step = min(max(-1.2 * at_lower / slope, 0.01), 0.7)
        lower = upper - step
    sigma = math.exp(brentq(excess, lower, upper, xtol=_SIGMA_TOLERANCE / 4))
    while spends(sigma) > goal:
        sigma *= 1 + _SIGMA_TOLERANCE / 2
    return sigma


@lru_cache(maxsize=1024)
def _epsilon(merged: tuple[Segment, ...], delta: float) -> Epsilon:
    if not merged:
        return Epsilon(0.0, "prv", 0.0, 0.0)
    by_rdp = _rdp(merged, delta)
    if any(segment.noise_multiplier == 0 for segment in merged):
        return Epsilon(math.inf, "rdp", None, math.inf, "a release without noise")
    try:
        lower, upper = _prv(merged, delta, by_rdp)
        if upper < 0.8 * by_rdp:
            # The error was chosen relative to RDP's bound, which is far off: choose it again.
            lower, upper = _prv(merged, delta, upper)
    except (ArithmeticError, ValueError, RuntimeError, IndexError, MemoryError) as failure:
        return Epsilon(by_rdp, "rdp", None, by_rdp, f"PRV failed ({failure}), so RDP is used")
    if not (math.isfinite(lower) and math.isfinite(upper)):
        return Epsilon(by_rdp, "rdp", None, by_rdp, "PRV is not finite, so RDP is used")
    if lower > by_rdp:
        note = f"PRV says at least {lower:.6g}, above RDP's bound, so RDP is used"
        return Epsilon(by_rdp, "rdp", None, by_rdp, note)
    upper = max(upper, 0.0)
    if upper <= by_rdp:
        return Epsilon(upper, "prv", upper, by_rdp)
    return Epsilon(by_rdp, "rdp", upper, by_rdp, "RDP is the smaller bound here")


def _rdp(merged: tuple[Segment, ...], delta: float) -> float:
    if not merged:
        return 0.0
    value, best = _rdp_to_epsilon(_rdp_curve(merged, _WHOLE_ORDERS), _WHOLE_ORDERS, delta)
    # The bound falls up to its best order and rises from there, so that only its neighbours can be
    # better; it is a bound at any order.
    near = tuple(order for order in _FRACTIONAL_ORDERS if abs(order - best) < 1)
    if not near:
        return value
    return min(value, _rdp_to_epsilon(_rdp_curve(merged, near), near, delta)[0])


def _rdp_curve(merged: tuple[Segment, ...], orders: tuple[float, ...]) -> Array:
    total: Array = np.zeros(len(orders))
    for segment in merged:
        per_step = _rdp_per_step(segment.sample_rate, segment.noise_multiplier, orders)
        total = total + segment.steps * per_step
    return total


def _rdp_to_epsilon(total: Array, orders: tuple[float, ...], delta: float) -> tuple[float, float]:
    """The bound, and the order that gives it."""
    from opacus.accountants.analysis.rdp import get_privacy_spent

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # The best order may be the last one; the bound holds all the same.
        warnings.simplefilter("ignore")
        value, order = get_privacy_spent(orders=list(orders), rdp=list(total), delta=delta)
    return max(float(value), 0.0), float(order)


@lru_cache(maxsize=4096)
def _rdp_per_step(rate: float, sigma: float, orders: tuple[float, ...]) -> Array:
    if sigma == 0:
        return np.full(len(orders), np.inf)
    from opacus.accountants.analysis.rdp import compute_rdp

    def at(order: float) -> float:
        try:
            value = float(compute_rdp(q=rate, noise_multiplier=sigma, steps=1, orders=float(order)))
        except (ArithmeticError, ValueError):
            # The series of some fractional orders loses all digits: do without that order.
            return math.inf
        return value if math.isfinite(value) and value >= 0 else math.inf

    whole = tuple(order for order in orders if isinstance(order, int))
    with np.errstate(all="ignore"):
        found = dict(zip(whole, whole_orders_rdp(rate, sigma, whole), strict=True)) if whole else {}
        return np.array([found[o] if isinstance(o, int) else at(o) for o in orders])


def whole_orders_rdp(rate: float, sigma: float, orders: tuple[int, ...]) -> Array:
    """RDP of one step at whole ``orders`` from 2 on (Mironov et al. 2019, section 3.3).

    At order a it is the logarithm of the sum over k of C(a, k) (1 - q)^(a - k) q^k
    exp((k^2 - k) / (2 s^2)), divided by a - 1.
    """
    order, sigma = np.array(orders, dtype=np.float64), np.float64(sigma)
    if rate == 1.0:
        return order / (2 * sigma**2)
    k = np.arange(max(orders) + 1, dtype=np.float64)
    terms = xlogy(k, rate) + (k**2 - k) / (2 * sigma**2)
    terms = terms + _log_binomials(orders) + xlog1py(order[:, None] - k, -rate)
    terms[k > order[:, None]] = -np.inf
    # Of hardly any loss rounding may leave less than nothing; what is no number bounds nothing.
    found = np.maximum(logsumexp(terms, axis=1) / (order - 1), 0.0)
    return cast(Array, np.where(np.isfinite(found), found, np.inf))


@lru_cache(maxsize=4)
def _log_binomials(orders: tuple[int, ...]) -> Array:
    """log C(a, k), [orders, largest order + 1]; meaningless where k > a."""
    a = np.array(orders, dtype=np.float64)[:, None]
    k = np.arange(max(orders) + 1, dtype=np.float64)
    return cast(Array, gammaln(a + 1) - gammaln(k + 1) - gammaln(np.maximum(a - k, 0) + 1))


class _AddedRecord:
    """Privacy loss log(Q/P) under Q, where Q = N(0, s^2) and P = (1-q) N(0, s^2) + q N(1, s^2).

    The direction in which a record is added, for Opacus' discretisation, which has the other one.
    """

    def __init__(self, sample_rate: float, noise_multiplier: float) -> None:
        self.sample_rate = sample_rate
        self.noise_multiplier = noise_multiplier

    def cdf(self, t: npt.ArrayLike) -> Array:
        q, sigma = self.sample_rate, self.noise_multiplier
        # log(Q/P) <= t exactly where P/Q = 1 - q + q exp((2x - 1) / (2 s^2)) >= exp(-t).
        ratio = (np.exp(-np.asarray(t, dtype=np.float64)) - (1 - q)) / q
        reached = ratio > 0
        x = sigma**2 * np.log(np.where(reached, ratio, 1.0)) + 0.5
        return cast(Array, np.where(reached, ndtr(-x / sigma), 1.0))


def _prv(merged: tuple[Segment, ...], delta: float, rough: float) -> tuple[float, float]:
    """Proven lower and upper end of epsilon: the larger of the two directions."""
    if delta < _SMALLEST_PRV_DELTA:
        raise ArithmeticError(f"delta {delta:g} is within its rounding errors")
    delta_error = delta / 1000
    composed, error = _both_directions(merged, delta_error, _RELATIVE_ERROR * rough)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        ends = [prv.compute_epsilon(delta, delta_error, error) for prv in composed]
    return max(float(low) for low, _, _ in ends), max(float(high) for _, _, high in ends)


def _both_directions(
    merged: tuple[Segment, ...], delta_error: float, error: float
) -> tuple[list[DiscretePRV], float]:
    """Composed privacy losses, a record removed and a record added, and their error in epsilon.

    The error is at least the requested `error`: it is larger where the mesh would be too long.
    """
    from opacus.accountants.analysis.prv import PoissonSubsampledGaussianPRV

    steps = [segment.steps for segment in merged]
    removed = [PoissonSubsampledGaussianPRV(s.sample_rate, s.noise_multiplier) for s in merged]
    added = [_AddedRecord(s.sample_rate, s.noise_multiplier) for s in merged]
    half_width = _safe_half_width(merged, delta_error, error)
    if half_width > _LARGEST_LOSS:
        raise OverflowError(f"privacy losses up to {half_width:.3g}")
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        # Mesh size from the error, or, where that mesh would be too long, the error from the mesh.
        per_mesh = math.sqrt(sum(steps) * math.log(12 / delta_error) / 2)
        error = max(error, per_mesh * 2 * half_width / _LARGEST_MESH)
        domain = _domain(half_width, error / per_mesh)
        return [_compose(prvs, steps, domain) for prvs in (removed, added)], error


def _safe_half_width(merged: tuple[Segment, ...], delta_error: float, error: float) -> float:
    """How far the discretisation must reach (Gopi et al., remark 5.6)."""
    whole = _rdp(merged, delta_error / 4)
    each = delta_error / (8 * sum(segment.steps for segment in merged))
    single = max(_rdp((Segment(s.noise_multiplier, s.sample_rate, 1),), each) for s in merged)
    return max(whole, single, error) + 3


def _domain(half_width: float, mesh: float) -> Domain:
    """At least [-half_width, half_width], with a mesh point on 0 and a length fit for the FFT."""
    from opacus.accountants.analysis.prv import Domain

    half = int(next_fast_len(math.ceil(half_width / mesh) + 1, real=True))
    return Domain(t_min=-(half - 1) * mesh, t_max=half * mesh, size=2 * half)


class _Truncated:
    """A privacy loss within a domain, for Opacus' discretisation.

    Opacus' own integrates for its mean one number at a time, which takes most of a composition.
    """

    def __init__(self, prv: Any, domain: Domain) -> None:
        from opacus.accountants.analysis.prv import TruncatedPrivacyRandomVariable

        self.cdf = TruncatedPrivacyRandomVariable(prv, domain.t_min, domain.t_max).cdf
        self.low, self.high = float(domain.t_min), float(domain.t_max)
        # Where the loss's support ends, on this side or, where a record is added, on the other.
        end = math.log1p(-prv.sample_rate) if prv.sample_rate < 1 else 0.0
        self.steep = (0.0, end, -end)

    def mean(self) -> float:
        """The upper end less the integral of the distribution function (Gauss and Legendre).

        Raises ArithmeticError when half as many nodes give another number.
        """
        away = np.logspace(-9, 0, 28) * max(-self.low, self.high)
        crowded = [place + np.concatenate([-away, [0.0], away]) for place in self.steep]
        # Evenly too, for the bulk of a loss that lies away from these.
        points = np.concatenate([*crowded, np.linspace(self.low, self.high, 257)])
        edges = np.unique(np.clip(points, self.low, self.high))
        coarse, fine = (self._integral(edges, nodes) for nodes in (8, 16))
        if not abs(coarse - fine) <= _MEAN_TOLERANCE:
            raise ArithmeticError("the mean of a privacy loss does not settle")
        return self.high - fine

    def _integral(self, edges: Array, nodes: int) -> float:
        places, weights = np.polynomial.legendre.leggauss(nodes)
        half = np.diff(edges)[:, None] / 2
        at = edges[:-1, None] + half * (1 + places)
        return float((self.cdf(at) * weights * half).sum())


def _compose(prvs: Sequence[Any], steps: list[int], domain: Domain) -> DiscretePRV:
    from opacus.accountants.analysis.prv import compose_heterogeneous, discretize

    discrete = [discretize(_Truncated(prv, domain), domain) for prv in prvs]
    return compose_heterogeneous(dprvs=discrete, num_self_compositions=steps)


def _check_delta_range(delta: float) -> None:
    if not 0 < delta < 1:
        raise ValueError(f"delta is {delta}, not between 0 and 1")
