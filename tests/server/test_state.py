"""Sampling, checkpoints, history."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from common.errors import UserError
from common.messages import Report
from results.history import Cost, History, RoundRecord, rounds_csv
from results.schema import results
from scripts.progress import summary
from server import checkpoint as checkpoints
from server.callbacks.tensorboard import TensorBoard
from server.checkpoint import Checkpoint
from server.reports import reply_metrics
from server.sampling import sample


def test_sampling_depends_on_names_seed_and_round_only() -> None:
    names = [f"p{i}" for i in range(10)]
    assert sample(names, 0.3, 1, 4) == sample(names[::-1], 0.3, 1, 4)
    assert len(sample(names, 0.25, 1, 4)) == 3
    assert sample(names, 1.0, 1, 4) == names
    drawn = Counter(n for r in range(2000) for n in sample(names, 0.3, 7, r))
    # Binomial(2000, 0.3): 600 with a standard deviation of 20.5.
    assert all(abs(count - 600) < 90 for count in drawn.values())


def some_checkpoint(round_number: int) -> Checkpoint:
    history = History(
        rounds=[RoundRecord(round=1, accuracy=0.5)],
        cost=Cost(wall_seconds=2.5),
        refused_rounds={"a": 1},
        weight_sums={"b": 0.5},
    )
    return Checkpoint(
        round=round_number,
        run_id="id",
        config_hash="hash",
        parameters={"w": torch.randn(3, 2)},
        state={"server/m": torch.randn(6)},
        history=history,
        stale_rounds=2,
        best_loss=0.25,
    )


def test_checkpoint_round_trip_and_keep(tmp_path: Path) -> None:
    assert checkpoints.latest(tmp_path) is None
    for number in (1, 2, 11):
        saved = some_checkpoint(number)
        checkpoints.save(tmp_path, saved, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["round-000002", "round-000011"]
    found = checkpoints.latest(tmp_path)
    assert found is not None
    assert torch.equal(found.parameters["w"], saved.parameters["w"])
    assert torch.equal(found.state["server/m"], saved.state["server/m"])
    assert (found.round, found.history, found.best_loss) == (11, saved.history, 0.25)


def test_a_broken_checkpoint_is_named(tmp_path: Path) -> None:
    path = checkpoints.save(tmp_path, some_checkpoint(3), keep=2)
    (path / "parameters.safetensors").write_bytes(b"half")
    with pytest.raises(UserError, match="round-000003"):
        checkpoints.latest(tmp_path)


def report(name: str, right: float, wrong: float) -> Report:
    return Report(
        name,
        [[right, wrong], [0.0, 0.0]],
        {"g=a": [[right, wrong], [0.0, 0.0]]},
        loss=0.5,
        examples=10,
        epsilon=1.5,
        delta=1e-5,
    )


def test_results_without_a_test_set_pool_the_partners() -> None:
    history = History(rounds=[RoundRecord(round=1)], weight_sums={"a": 3.0, "b": 1.0})
    reports = [report("b", 1, 1), report("a", 9, 1)]
    history.rounds[-1].measure_partners(reports)
    found = results(history, reports, None, seed=4, config_hash="h")
    # The smaller partner has two rows; the larger one counts for three times that.
    assert found["final"]["accuracy"] == pytest.approx((1 + 9 * 0.6) / 8)
    assert found["final"]["partners"]["a"]["weight_share"] == pytest.approx(0.75)
    assert found["final"]["groups"]["g=a"]["n"] == pytest.approx(8)
    assert found["final"]["gaps"]["equalized_odds"] is None
    assert found["rounds"][0]["worst_partner_accuracy"] == pytest.approx(0.5)
    assert found["rounds"][0]["partner_accuracy_std"] == pytest.approx(0.2)
    assert rounds_csv(history).splitlines()[0].startswith("round,accuracy,loss,")


def test_a_partner_without_validation_rows_does_not_blank_the_others() -> None:
    history = History(rounds=[RoundRecord(round=1)])
    empty = replace(report("c", 0, 0), loss=float("nan"))
    found = results(history, [report("a", 9, 1), empty], None, seed=4, config_hash="h")
    assert found["final"]["mean_partner_accuracy"] == pytest.approx(0.9)
    assert found["final"]["loss"] == pytest.approx(0.5)
    assert found["final"]["partners"]["c"]["accuracy"] is None
    assert reply_metrics(empty) == {"examples": 10}
    summary(found, private=True)


def test_tensorboard_gets_the_partner_columns_too(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path)
    rows = [RoundRecord(round=1, accuracy=0.5), RoundRecord(round=2, accuracy=0.6)]
    board.round_ended(rows[0])
    rows[0].worst_partner_accuracy = 0.3
    board.round_ended(rows[1])
    rows[1].worst_partner_accuracy = 0.4
    board.finished({"rounds": [row.row() for row in rows]})
    events = EventAccumulator(str(tmp_path)).Reload()
    for name, wanted in (("worst_partner_accuracy", [0.3, 0.4]), ("accuracy", [0.5, 0.6])):
        assert [e.value for e in events.Scalars(name)] == pytest.approx(wanted)
        assert [e.step for e in events.Scalars(name)] == [1, 2]
