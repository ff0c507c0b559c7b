"""One coordinator and four partners, TLS, node authentication: the same result as in simulation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.deploy.conftest import NAMES, Federation, job, write_rows

pytestmark = pytest.mark.deploy


def final_parameters(directory: Path) -> dict[str, torch.Tensor]:
    newest = sorted((directory / "checkpoints").glob("round-*"))[-1]
    return load_file(newest / "parameters.safetensors")


def test_a_deployment_equals_the_simulation(
    federation: Federation,
    sites: list[tuple[str, str, str]],
    test_rows: Path,
    tiny_bert: Path,
    tmp_path: Path,
) -> None:
    shared = [*job(tiny_bert, test_rows), "privacy=none", "run.rounds=3"]
    deployed = federation.submit(*shared, "run.partners=4", f"run.dir={tmp_path / 'deployed'}")
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr + federation.log("server")
    write_rows(tmp_path / "all.csv", sites)
    simulated = federation.command(
        "simulate",
        *shared,
        f"data.path={tmp_path / 'all.csv'}",
        "data.columns.groups=[site]",
        "partition=natural",
        "partition.blocks.partner.by=site",
        "run.workers=1",
        f"run.dir={tmp_path / 'simulated'}",
    )
    assert simulated.returncode == 0, simulated.stdout + simulated.stderr
    results = json.loads((tmp_path / "deployed" / "results.json").read_text())
    assert set(results["final"]["partners"]) == set(NAMES)
    assert [r["replies"] for r in results["rounds"]] == [4, 4, 4]
    wanted = final_parameters(tmp_path / "simulated")
    moved = 0.0
    for name, tensor in final_parameters(tmp_path / "deployed").items():
        assert torch.allclose(tensor, wanted[name], rtol=0, atol=1e-5), name
        moved += float(tensor.abs().sum())
    assert moved > 0
