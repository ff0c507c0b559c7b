"""Numerical composition of privacy loss random variables (PRV), on Opacus' building blocks.

Gopi, Lee, Wutschitz, "Numerical Composition of Differential Privacy", 2021 (arXiv:2106.02848).
Opacus composes only the direction in which a record is *removed*.  That the other direction is
never worse is proven for one step, not for a composition (Lebeda, Regehr, Kamath, Steinke,
"Avoiding Pitfalls for Privacy Accounting of Subsampled Mechanisms under Composition", 2024), so
both are composed here and the larger result counts.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
from scipy.fft import next_fast_len
from scipy.special import ndtr

from client.accounting.mechanisms import Segment
from client.accounting.rdp import Array, composed_epsilon

if TYPE_CHECKING:
    # Opacus takes over a second to import, and whoever reads a policy computes nothing.
    from opacus.accountants.analysis.prv import DiscretePRV, Domain

# The PRV's proven error, relative to epsilon: added to its estimate, so also what it over-counts.
_RELATIVE_ERROR = 0.002
_LARGEST_MESH = 2**20
# exp() of the privacy loss must not overflow: Opacus would then return far too small an epsilon.
_LARGEST_LOSS = 600.0
_SMALLEST_PRV_DELTA = 1e-10
# profile() is exact to a thousandth of this.
_PROFILE_DELTA = 1e-3
# Of a privacy loss's mean: no more than Opacus' own integration promises for each of its intervals.
_MEAN_TOLERANCE = 1.5e-8


def epsilon_bounds(merged: tuple[Segment, ...], delta: float, rough: float) -> tuple[float, float]:
    """Proven lower and upper end of epsilon: the larger of the two directions.

    Args:
        merged: the segments composed, at least one, all with noise.
        delta: the delta at which epsilon is asked for.
        rough: an upper bound of epsilon, relative to which the error is chosen.

    Raises:
        ArithmeticError, ValueError, RuntimeError, IndexError, MemoryError: where the
            discretisation does not work out; the caller must then use another accountant.
    """
    if delta < _SMALLEST_PRV_DELTA:
        raise ArithmeticError(f"delta {delta:g} is within its rounding errors")
    delta_error = delta / 1000
    composed, error = _both_directions(merged, delta_error, _RELATIVE_ERROR * rough)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        ends = [prv.compute_epsilon(delta, delta_error, error) for prv in composed]
    return max(float(low) for low, _, _ in ends), max(float(high) for _, _, high in ends)


def profile(merged: tuple[Segment, ...], epsilons: Array) -> Array:
    """Upper bounds on delta, one for each of `epsilons`: the larger of the two directions.

    Raises:
        ArithmeticError, ValueError, RuntimeError, IndexError, MemoryError: as `epsilon_bounds`.
    """
    delta_error = _PROFILE_DELTA / 1000
    rough = composed_epsilon(merged, _PROFILE_DELTA)
    composed, error = _both_directions(merged, delta_error, _RELATIVE_ERROR * rough)
    bounds = np.max([_deltas(prv, epsilons - error) for prv in composed], axis=0) + delta_error
    if not np.isfinite(bounds).all():
        raise ArithmeticError("PRV is not finite")
    return cast(Array, np.clip(bounds, 0.0, 1.0))


def _deltas(prv: DiscretePRV, epsilons: Array) -> Array:
    """E[(1 - exp(epsilon - loss))+] of the discretised loss, for each epsilon."""
    losses, masses = np.asarray(prv.domain.ts, np.float64), np.asarray(prv.pmf, np.float64)
    positive = losses > float(np.min(epsilons))
    losses, masses = losses[positive], masses[positive]
    above = np.append(np.cumsum(masses[::-1])[::-1], 0.0)
    weighted = np.append(np.cumsum((masses * np.exp(-losses))[::-1])[::-1], 0.0)
    first = np.searchsorted(losses, epsilons, side="right")
    return cast(Array, above[first] - np.exp(epsilons) * weighted[first])


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
    whole = composed_epsilon(merged, delta_error / 4)
    each = delta_error / (8 * sum(segment.steps for segment in merged))
    single = max(
        composed_epsilon((Segment(s.noise_multiplier, s.sample_rate, 1),), each) for s in merged
    )
    return max(whole, single, error) + 3


def _domain(half_width: float, mesh: float) -> Domain:
    """At least [-half_width, half_width], with a mesh point on 0 and a length fit for the FFT."""
    from opacus.accountants.analysis.prv import Domain

    half = int(next_fast_len(math.ceil(half_width / mesh) + 1, real=True))
    return Domain(t_min=-(half - 1) * mesh, t_max=half * mesh, size=2 * half)


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
        crowded = [point + np.concatenate([-away, [0.0], away]) for point in self.steep]
        # Evenly too, for the bulk of a loss that lies away from these.
        points = np.concatenate([*crowded, np.linspace(self.low, self.high, 257)])
        edges = np.unique(np.clip(points, self.low, self.high))
        coarse, fine = (self._integral(edges, nodes) for nodes in (8, 16))
        if not abs(coarse - fine) <= _MEAN_TOLERANCE:
            raise ArithmeticError("the mean of a privacy loss does not settle")
        return self.high - fine

    def _integral(self, edges: Array, nodes: int) -> float:
        nodes_at, weights = np.polynomial.legendre.leggauss(nodes)
        half = np.diff(edges)[:, None] / 2
        at = edges[:-1, None] + half * (1 + nodes_at)
        return float((self.cdf(at) * weights * half).sum())


def _compose(prvs: Sequence[Any], steps: list[int], domain: Domain) -> DiscretePRV:
    from opacus.accountants.analysis.prv import compose_heterogeneous, discretize

    discrete = [discretize(_Truncated(prv, domain), domain) for prv in prvs]
    return compose_heterogeneous(dprvs=discrete, num_self_compositions=steps)
