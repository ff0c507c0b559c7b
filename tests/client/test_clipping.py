"""The factors that clip gradients, against their definitions."""

from __future__ import annotations

import math

import pytest
import torch

from client.clipping import clip_factors


def factors(norms: list[float], clip: float, rule: str) -> list[float]:
    return [float(f) for f in clip_factors(torch.tensor(norms), clip, rule)]


def test_flat_clipping_shrinks_what_is_longer_than_the_norm_and_nothing_else() -> None:
    assert factors([0.0, 0.5, 2.0, 8.0], 1.0, "abadi") == pytest.approx(
        [1, 1, 0.5, 0.125], rel=1e-5
    )
    # The small number that keeps a norm of 0 from dividing is the one that is documented.
    assert factors([1e-6], 1e-6, "abadi") == pytest.approx([0.5])


def test_automatic_clipping_is_the_formula_of_auto_s() -> None:
    wanted = [2 / 0.01, 2 / 0.51, 2 / 8.01]
    assert factors([0.0, 0.5, 8.0], 2.0, "automatic") == pytest.approx(wanted)


@pytest.mark.parametrize("rule", ["abadi", "automatic"])
def test_no_gradient_contributes_more_than_the_clipping_norm(rule: str) -> None:
    norms = torch.logspace(-8, 30, 500)
    # Up to the rounding of float32, for which the noise leaves room (`common.grid`).
    assert float((clip_factors(norms, 0.7, rule) * norms).max()) <= 0.7 * (1 + 1e-6)


@pytest.mark.parametrize("rule", ["abadi", "automatic"])
def test_a_norm_that_is_not_finite_gets_no_weight(rule: str) -> None:
    assert factors([math.nan, math.inf, -math.inf], 1.0, rule) == [0.0, 0.0, 0.0]


def test_a_factor_that_overflows_gives_no_weight() -> None:
    assert factors([0.0], 1e38, "automatic") == [0.0]
