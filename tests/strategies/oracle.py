"""Independent implementations to compare with."""

from __future__ import annotations

import pkgutil
from dataclasses import fields
from importlib import import_module
from types import ModuleType

import pytest
import torch
from torch import Tensor

from bench.aggregation import byzfl_module
from strategies import robust
from strategies.rows import Rows
from strategies.stage import Context, RobustRule, RuleResult


def every_rule(f: int) -> list[RobustRule]:
    """One rule of each module of ``strategies/robust``: a new module joins by being there."""
    rules = []
    for module in pkgutil.iter_modules(robust.__path__):
        name = f"{robust.__name__}.{module.name}"
        (kind,) = [
            value
            for value in vars(import_module(name)).values()
            if isinstance(value, type) and value.__module__ == name and hasattr(value, "apply")
        ]
        rules.append(kind(f) if "f" in {field.name for field in fields(kind)} else kind())
    return rules


def byzfl(module: str) -> ModuleType:
    """A submodule of byzfl; skips the test where it is not installed."""
    try:
        return byzfl_module(module)
    except ImportError as error:
        pytest.skip(str(error))


def context(seed: int = 0, reference: Tensor | None = None) -> Context:
    return Context(torch.Generator().manual_seed(seed), reference)


def uniform(n: int) -> Tensor:
    return torch.full((n,), 1 / n, dtype=torch.float64)


def run(
    rule: RobustRule,
    matrix: Tensor,
    weights: Tensor | None = None,
    seed: int = 0,
    reference: Tensor | None = None,
) -> RuleResult:
    """One application of a rule from its first state."""
    weights = uniform(len(matrix)) if weights is None else weights
    state = rule.init(matrix.shape[1])
    return rule.apply(Rows(matrix), weights, state, context(seed, reference))


def random_rows(n: int, d: int, seed: int, outliers: int = 0) -> Tensor:
    """Heterogeneous rows around a common direction, the last ``outliers`` of them far off."""
    g = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, d, generator=g) * (0.5 + torch.rand(n, 1, generator=g))
    rows += torch.randn(d, generator=g)
    if outliers:
        rows[-outliers:] = rows[-outliers:] * 8 - 3
    return rows


def relative_error(actual: Tensor, expected: Tensor) -> float:
    expected = expected.double()
    return float((actual.double() - expected).norm() / expected.norm().clamp_min(1e-12))
