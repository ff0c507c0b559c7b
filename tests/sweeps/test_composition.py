"""The composed ε of a sweep against accounting by hand."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from client.accounting import Segment, epsilon, rdp_epsilon, worst_rdp_epsilon
from client.ledger import Ledger, Spend
from common.config import Config
from common.config_file import write_config
from scripts.compose import compose_config
from sweeps.composition import compose_trials
from sweeps.records import Document, Trial, read_sweep, tell, write_document

DELTA = 1e-5
BIG, SMALL = Segment(2.0, 0.05, 40), Segment(3.0, 0.3, 40)


def trial(place: Path, number: int, config: Config, spends: dict[str, Segment]) -> None:
    directory = place / str(number)
    directory.mkdir()
    config.run.dir = str(directory)
    write_config(config, directory / "config.yaml")
    for name, segment in spends.items():
        folder = directory / "partners" / name
        folder.mkdir(parents=True)
        with Ledger.open(folder / "ledger.sqlite", name) as ledger:
            reserved = ledger.reserve(
                Spend(f"run-{number}", "round 1", [segment], DELTA, "training", "d/train"), None
            )
            ledger.commit(reserved)
            # Exact metrics, the default of a simulation, are outside of the sweep's epsilon.
            ledger.reserve(
                Spend(f"run-{number}", "exact", [Segment(0.0, 1.0, 1)], DELTA, "", "d/validation"),
                None,
            )
    tell(place, Trial(number, "pruned" if number else "finished", []))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_document(tmp_path, Document([], "x", [], [], 3))
    return tmp_path


def test_trials_on_the_same_shares_compose_partner_by_partner(place: Path) -> None:
    for number in range(3):
        trial(place, number, compose_config([]), {"a": BIG, "b": SMALL})
    found = compose_trials(read_sweep(place))
    assert found is not None
    alone = max(epsilon([s], DELTA).value for s in (BIG, SMALL))
    together = max(epsilon([s] * 3, DELTA).value for s in (BIG, SMALL))
    assert (found.private, found.open, found.delta) == (3, 0, DELTA)
    assert found.single == pytest.approx(alone)
    assert found.epsilon == pytest.approx(together, rel=1e-6)
    assert alone < together < 3 * alone
    assert "together up to" in found.words()


def test_other_shares_count_with_the_worst_partner(place: Path) -> None:
    trial(place, 0, compose_config(["run.seed=0"]), {"a": BIG, "b": SMALL})
    trial(place, 1, compose_config(["run.seed=1"]), {"a": SMALL, "b": BIG})
    trial(place, 2, compose_config(["privacy=none"]), {})
    found = compose_trials(read_sweep(place))
    assert found is not None
    # Whoever held the record: no choice of partners costs more.
    choices = [rdp_epsilon([x, y], DELTA) for x in (BIG, SMALL) for y in (BIG, SMALL)]
    assert found.epsilon >= max(choices) - 1e-9
    assert found.epsilon <= max(choices) * 1.25
    assert (found.accountant, found.open) == ("rdp", 1)
    assert "no guarantee" in found.words()


def test_worst_of_equal_groups_is_their_composition() -> None:
    assert worst_rdp_epsilon([[[BIG]], [[SMALL]]], DELTA) == rdp_epsilon([BIG, SMALL], DELTA)
    assert worst_rdp_epsilon([], DELTA) == 0.0


def test_nothing_yet(place: Path) -> None:
    assert compose_trials(read_sweep(place)) is None
    assert json.loads((place / "sweep.json").read_text())["planned"] == 3
    assert asdict(Trial(0, "running", []))["same_as"] is None
