"""SMEA against ByzFL and against trying every subset in plain float64 code."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from common.errors import UserError
from strategies.robust.smea import SMEA, least_varied_subset
from strategies.rows import Rows
from tests.strategies.oracle import byzfl, random_rows, relative_error, run


def slow(x: np.ndarray, f: int) -> list[int]:
    def largest(subset: tuple[int, ...]) -> float:
        rows = x[list(subset)]
        return float(np.linalg.norm(rows - rows.mean(0), ord=2))

    return list(min(combinations(range(len(x)), len(x) - f), key=largest))


@pytest.mark.parametrize(("n", "f"), [(3, 1), (5, 2), (7, 1), (9, 4), (11, 3), (6, 0)])
@pytest.mark.parametrize("seed", range(4))
def test_every_subset_is_tried(n, f, seed):
    x = random_rows(n, 60, seed=seed, outliers=f if seed % 2 else 0)
    assert least_varied_subset(Rows(x).distances, f).tolist() == slow(x.double().numpy(), f)
    result = run(SMEA(f), x)
    kept = slow(x.double().numpy(), f)
    assert relative_error(result.update, x[kept].mean(0)) < 1e-5
    expected = (x - x[kept].mean(0)).norm(dim=1)
    torch.testing.assert_close(result.scores.float(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("n", "f"), [(7, 1), (9, 2), (10, 3)])
def test_against_byzfl(n, f, monkeypatch):
    # ByzFL takes one power iteration from a random start: the rows differ along one line, nearly,
    # and it starts from there, so that its eigenvalue is the true one.
    g = torch.Generator().manual_seed(n)
    line = torch.randn(200, generator=g)
    x = torch.randn(n, 1, generator=g) * line + 1.0 + 1e-6 * torch.randn(n, 200, generator=g)
    monkeypatch.setattr(np.random, "randn", lambda d: line.double().numpy())
    expected = byzfl("aggregators").SMEA(f=f)(x.double().numpy())
    assert relative_error(run(SMEA(f), x).update, torch.from_numpy(expected)) < 1e-5


def test_the_first_of_equal_subsets_is_taken():
    x = torch.tensor([[0.0, 1], [0, 1], [0, 1], [0, 1], [5, 1]])
    assert least_varied_subset(Rows(x).distances, 2).tolist() == [0, 1, 2]
    shifted = 1e4 + random_rows(1, 500, seed=0) + torch.tensor([[0.0]] * 5 + [[1.0]] * 4)
    assert least_varied_subset(Rows(shifted).distances, 4).tolist() == [0, 1, 2, 3, 4]


def test_what_it_needs():
    with pytest.raises(UserError, match="smea needs n > 2f"):
        SMEA(2).check(4)
    SMEA(4).check(20)
    with pytest.raises(UserError, match="there are 53130: n=25, f=5"):
        SMEA(5).check(25)
    with pytest.raises(ValueError, match="max_subsets"):
        SMEA(1, max_subsets=0)
