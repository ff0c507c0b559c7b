"""The study of robustness, on made-up vectors in place of the encoder's."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bench import conflict, robustness
from bench.robustness import Cell
from common.data.load import resolve_labels
from scripts.compose import compose_config
from simulation.partner import simulated_shares


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where every row is a noisy copy of its label's direction, beside a constant."""
    folder = tmp_path_factory.mktemp("heads")
    config = compose_config([])
    config.run.cache_dir = str(folder)
    config.data.labels = resolve_labels(config.data, folder)
    table, _ = simulated_shares(config)
    generator = torch.Generator().manual_seed(0)

    def vectors(labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.randn(len(labels), 7, generator=generator)
        x[:, 0] += 2.0 * (2 * labels - 1)
        x[:, -1] = 1.0
        return x, labels

    def balanced(rows: int) -> torch.Tensor:
        return torch.arange(rows) % 2

    found = {
        "shared": vectors(torch.as_tensor(table.labels)),
        "public": vectors(balanced(200)),
        "test": vectors(balanced(400)),
        "sources": np.array(["imdb"] * 200 + ["rotten_tomatoes"] * 200),
    }
    torch.save(found, folder / "heads.pt")
    return folder


def test_averaging_breaks_where_the_recommended_pipeline_holds(directory: Path) -> None:
    world = (2, "skewed", "off", [0], directory)
    plain = robustness.measure("mean", *world)
    recommended = robustness.measure("recommended", *world)
    assert set(plain.accuracies) == set(robustness.ATTACKS)
    assert plain.worst is not None
    assert recommended.worst is not None
    assert plain.worst[0] < 0.7
    assert recommended.worst[0] > 0.93
    refused = robustness.measure("bulyan", *world)
    assert refused.worst is None
    assert "11 partners" in str(refused.refusal)


def test_an_interrupted_study_runs_the_rest_and_only_the_rest(directory: Path) -> None:
    path = directory / "cells.jsonl"
    grid = list(robustness.grid(["mean"]))
    todo = [key for key in grid if key[2:] == ("IID", "off") and key[1] in (0, 1)]
    known = [Cell(*key, (0,), {"sign_flip": 0.1234}) for key in grid if key not in todo]
    lines = [json.dumps(dataclasses.asdict(cell)) + "\n" for cell in known]
    path.write_text("".join(lines) + '{"rule": "mean", "mal')
    robustness.main(["--dir", str(directory), "--rules", "mean", "--workers", "1"])
    after = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(after) == len(grid) == 16
    page = (directory / "robustness.md").read_text()
    assert page.count("12.3 sign_flip") == 11
    assert page.count("\n| mean |") == 4
    assert (directory / "robustness.svg").read_text().startswith("<?xml")
    before = path.read_text()
    robustness.main(["--dir", str(directory), "--rules", "mean", "--workers", "1"])
    assert path.read_text() == before


def test_the_table_of_the_conflict(directory: Path) -> None:
    row = conflict.measure([*conflict.rows()["recommended"], "privacy=none"], [0], directory)
    assert row["worst_partner"] <= row["partners"]
    assert row["under_worst_attack"] == min(row["attacked"].values())
    assert conflict.markdown({"recommended": row}).count("|\n") == 3
