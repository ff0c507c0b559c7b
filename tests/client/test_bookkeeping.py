"""What book-keeping says of a layer, against per-example gradients in double precision."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from client.bookkeeping import (
    BookkeepingModule,
    _Factored,
    _gram,
    _weighted_products,
    _weighted_sums,
)
from client.clipping import clip_factors


def factored(dtype: torch.dtype, shared: float, seed: int) -> tuple[_Factored, torch.Tensor]:
    """Random inputs and output gradients, and the exact gradients [n, out, in] they stand for.

    Tokens resemble each other (`shared` = 1) or cancel in part (0).
    """
    generator = torch.Generator().manual_seed(seed)

    def rows(width: int) -> torch.Tensor:
        common = shared * torch.randn(5, 1, width, generator=generator)
        return (common + torch.randn(5, 24, width, generator=generator)).to(dtype)

    a, b = rows(48), rows(80)
    exact = torch.einsum("nti,ntj->nij", b.double(), a.double())
    return _Factored(a, b, (_gram(a), _gram(b))), exact


@pytest.mark.parametrize("shared", [0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_contribution_exceeds_its_norm(dtype: torch.dtype, shared: float) -> None:
    for seed in range(20):
        part, exact = factored(dtype, shared, seed)
        norms = part.squares().sqrt()
        # Not so much above it that private training would lose by it.
        slack = 1e-3 if dtype == torch.float32 else 0.05
        assert bool((norms >= exact.flatten(1).norm(dim=1)).all())
        assert bool((norms <= exact.flatten(1).norm(dim=1) * (1 + slack)).all())
        for i in range(5):
            factors = torch.zeros(5)
            factors[i] = 1 / norms[i]
            assert _weighted_products(part.a, part.b, factors).double().norm() <= 1 + 1e-6


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e4, 1e7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_cancels_cannot_hide(dtype: torch.dtype, size: float) -> None:
    """Tokens in pairs whose gradients cancel: in real numbers hardly anything is left of them."""
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        a = torch.randn(5, 1, 48, generator=generator).repeat(1, 24, 1)
        half = size * torch.randn(5, 12, 80, generator=generator)
        b = torch.cat([half, -half], dim=1)[:, torch.randperm(24, generator=generator)]
        a, b = (x.to(dtype) for x in (a + 1e-7 * torch.randn(a.shape, generator=generator), b))
        part = _Factored(a, b, (_gram(a), _gram(b)))
        factors = clip_factors(part.squares().sqrt(), 0.1, "abadi")
        assert bool((factors > 0).all())
        for i in range(5):
            alone = torch.where(torch.arange(5) == i, factors, 0.0)
            assert _weighted_products(part.a, part.b, alone).double().norm() <= 0.1 * (1 + 1e-3)
            kept = float(factors[i]) * (b[i].double().T @ a[i].double())
            assert kept.norm() <= 0.1 * (1 + 1e-3)


def test_wild_numbers_contribute_nothing() -> None:
    wild = torch.ones(4, 3, 8)
    wild[0], wild[1], wild[2] = 1e12, 1e30, torch.nan
    tame = torch.full((4, 3, 8), 1e-12)
    for a, b in ((wild, tame), (tame, wild)):
        part = _Factored(a, b, (_gram(a), _gram(b)))
        factors = clip_factors(part.squares().sqrt(), 0.1, "abadi")
        assert factors[:3].tolist() == [0.0] * 3
        assert factors[3] > 0
        assert bool(_weighted_products(part.a, part.b, factors).isfinite().all())


def test_bfloat16_sum_is_that_of_the_rounded_gradients() -> None:
    part, exact = factored(torch.bfloat16, 0.5, 1)
    factors = torch.tensor([0.1, 0.2, 0.0, 0.4, 0.5])
    rounded = exact.float().bfloat16().double()
    wanted = torch.einsum("n,nij->ij", factors.double(), rounded)
    torch.testing.assert_close(
        _weighted_products(part.a, part.b, factors).double(), wanted, rtol=0.02, atol=0.02
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layers_that_read_the_same_get_what_each_would_get_alone(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    a, other = (torch.randn(5, 24, 48, generator=generator).to(dtype) for _ in range(2))
    parts = {}
    for height, inputs in ((80, a), (64, other), (96, a), (48, a)):
        b = torch.randn(5, 24, height, generator=generator).to(dtype)
        parts[torch.empty(height, 48)] = _Factored(inputs, b, (_gram(inputs), _gram(b)))
    factors = torch.tensor([0.1, 0.2, 0.0, 0.4, 0.5])
    found = dict(_weighted_sums(parts, factors))
    assert set(found) == set(parts)
    for parameter, part in parts.items():
        alone = _weighted_products(part.a, part.b, factors)
        torch.testing.assert_close(found[parameter], alone, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("clipping_rule", ["abadi", "automatic"])
def test_factors_bound_every_norm(clipping_rule: str) -> None:
    norms = torch.tensor([0.0, 1e-8, 0.01, 0.5, 3.0, 1e30])
    factors = clip_factors(norms, 0.5, clipping_rule)
    assert bool((norms * factors <= 0.5 * (1 + 1e-6)).all())
    wild = clip_factors(torch.tensor([float("nan"), float("inf")]), 0.5, clipping_rule)
    assert wild.tolist() == [0.0, 0.0]


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.linear(x))


def test_a_tied_layer_is_refused() -> None:
    with pytest.raises(NotImplementedError, match="used twice"):
        BookkeepingModule(Twice(), 1.0, "abadi")(torch.ones(2, 4))
