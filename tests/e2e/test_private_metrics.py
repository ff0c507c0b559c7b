"""A whole run whose partners tell nothing exactly, on validation rows alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from client import ledger
from tests.e2e.conftest import Run

pytestmark = pytest.mark.e2e


def test_private_metrics_have_standard_errors_and_are_in_the_ledger(
    run: Run, job: list[str], tmp_path: Path
) -> None:
    directory = tmp_path / "run"
    out = run(
        *job,
        "privacy.metrics=private",
        '+data.group_values.Haus=[Nord,"Süd"]',
        "data.test_fraction=0",
        "data.validation_fraction=0.4",
        "train.batch_size=20",
        "run.rounds=2",
        f"run.dir={directory}",
    )
    assert "noise ±" in out
    found = json.loads((directory / "results.json").read_text())
    final = found["final"]
    assert final["data"]["measured_on"] == "validation"
    assert final["data"]["partner_metrics"] == "private"
    assert final["data"]["training_rows_error"] == pytest.approx(30 * 3**0.5)
    for row in (*final["partners"].values(), *final["groups"].values()):
        assert 0 <= row["accuracy"] <= 1
        assert row["accuracy_error"] > 0
    assert final["accuracy_error"] > 0
    assert final["loss_error"] > 0
    assert final["fairness"]["groups"]["Haus"]["values"]["Nord"]["accuracy_error"] > 0
    assert all(row["mean_partner_accuracy_error"] > 0 for row in found["rounds"])
    assert all(row["validation_loss_error"] > 0 for row in found["rounds"])
    assert "noise ±" in (directory / "model" / "README.md").read_text()
    for name, row in final["partners"].items():
        entries = ledger.read(directory / "partners" / name / "ledger.sqlite")
        sides = [str(e.body["part"]).rpartition("/")[2] for e in entries if e.kind == "reserve"]
        # The number of rows and two rounds; metrics in two rounds and of the final model.
        assert sorted(sides) == ["train"] * 3 + ["validation"] * 3
        assert row["epsilon"] == ledger.total(entries, 1e-4).value
        assert 7.9 < row["epsilon"] <= 8.0
