"""The round loop, on a grid whose partners answer from a script."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
from flwr.app import Error

from common import messages
from common.data.schema import DataConfig
from common.errors import UserError
from common.messages import Refusal
from common.tasks import TASKS, Measured
from common.tasks.classification import Classification
from results.history import RoundRecord
from server import checkpoint as checkpoints
from server.callbacks import Callback, RoundResult
from server.checkpoint import Checkpoint
from server.exchange import Stopped
from tests.server.scripted import (
    Arrays,
    FourNumbers,
    Partner,
    Recorder,
    config,
    honest,
    prepared,
    server,
)

THREE = {
    "a": honest("a", lambda _: 1.0),
    "b": honest("b", lambda _: 2.0),
    "c": honest("c", lambda _: 6.0),
}


def newest(directory: Path) -> Checkpoint:
    found = checkpoints.latest(directory / "checkpoints")
    assert found is not None
    return found


def decisions(directory: Path) -> list[dict[str, Any]]:
    lines = (directory / "decisions.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_every_round_adds_the_mean_update_and_leaves_its_record(tmp_path: Path) -> None:
    model = FourNumbers(public_rows=True)
    results = server(config(tmp_path), THREE, model=model).run()
    saved = newest(tmp_path)
    assert saved.parameters["w"].tolist() == [9.0] * 4
    assert saved.constants["spread"].tolist() == [1.0, 1.0]
    assert [row["accuracy"] for row in results["rounds"]] == [0.03, 0.06, 0.09]
    assert [row["replies"] for row in results["rounds"]] == [3, 3, 3]
    assert [row["epsilon_max"] for row in results["rounds"]] == [1.5, 1.5, 1.5]
    shares = [row["weight_share"] for row in results["final"]["partners"].values()]
    assert shares == pytest.approx([1 / 3] * 3)
    assert [(d["partner"], d["round"]) for d in decisions(tmp_path)] == [
        (name, number) for number in (1, 2, 3) for name in "abc"
    ]
    assert json.loads((tmp_path / "results.json").read_text()) == results


def test_callbacks_hear_of_everything_in_order(tmp_path: Path) -> None:
    recorder = Recorder()
    server(config(tmp_path, rounds=1), THREE, [recorder]).run()
    assert recorder.events == [
        *(("preparing", n, 3) for n in (1, 2, 3)),
        ("started", ["a", "b", "c"], 1, 1),
        *(("replied", 1, n, 3) for n in (1, 2, 3)),
        ("round_ended", 1),
        *(("replied", 1, n, 3) for n in (1, 2, 3)),
        ("finished", 1),
    ]


def test_a_round_is_on_disk_when_callbacks_of_others_hear_of_it(tmp_path: Path) -> None:
    seen = []

    class Look(Callback):
        def round_ended(self, record: RoundRecord) -> None:
            rows = list(csv.DictReader(io.StringIO((tmp_path / "rounds.csv").read_text())))
            logged = (tmp_path / "audit.jsonl").read_bytes().count(b"\n") - 1
            seen.append((newest(tmp_path).round, len(decisions(tmp_path)) // 3, len(rows), logged))

        def finished(self, results: dict[str, Any]) -> None:
            seen.append((tmp_path / "results.json").exists())

    server(config(tmp_path, rounds=2), THREE, [Look()]).run()
    assert seen == [(1, 1, 1, 1), (2, 2, 2, 2), True]


LOSSES = {1: 0.9, 2: 0.7, 3: 0.8, 4: 0.7, 5: 0.6}


@pytest.mark.parametrize(("patience", "rounds"), [(0, 9), (1, 3), (2, 4), (3, 8)])
def test_patience_ends_a_run_whose_loss_no_longer_falls(
    tmp_path: Path, patience: int, rounds: int
) -> None:
    """The loss is at its best in round 2, equal to it in round 4, and better in round 5 only."""
    losses = [lambda number: LOSSES.get(number, 0.6)] * 2
    # One partner that always reports a better loss does not keep the run alive.
    script = {
        **{name: honest(name, loss=loss) for name, loss in zip("ab", losses, strict=True)},
        "liar": honest("liar", loss=lambda number: 0.5 / (number + 1)),
    }
    results = server(config(tmp_path, rounds=9, patience=patience), script).run()
    assert len(results["rounds"]) == rounds


def test_an_interrupted_run_ends_with_the_parameters_of_an_uninterrupted_one(
    tmp_path: Path,
) -> None:
    def script() -> dict[str, Partner]:
        return {n: honest(n, lambda number, n=n: 0.1 * number * ord(n)) for n in "abc"}  # type: ignore[misc]

    def settings(directory: Path) -> Any:
        return config(directory, rounds=4, average_last=0.75, fraction=0.6)

    whole = server(settings(tmp_path / "whole"), script()).run()
    stop = Event()

    class Interrupt(Callback):
        def round_completed(self, result: RoundResult) -> None:
            if result.record.round == 3:
                stop.set()

    cut = settings(tmp_path / "cut")
    with pytest.raises(Stopped):
        server(cut, script(), [Interrupt()], stop=stop).run()
    assert newest(tmp_path / "cut").round == 3
    with (tmp_path / "cut" / "decisions.jsonl").open("a") as file:
        file.write('{"round": 4, "partner": "a"}\n{"round": 4, "par')
    again = server(cut, script())
    assert again.run_id == "run"
    continued = again.run()
    assert continued["final"] == whole["final"]
    one, other = newest(tmp_path / "whole"), newest(tmp_path / "cut")
    assert one.state.keys() == other.state.keys()
    assert torch.equal(one.parameters["w"], other.parameters["w"])
    assert torch.equal(one.state["average/sum"], other.state["average/sum"])
    assert decisions(tmp_path / "cut") == decisions(tmp_path / "whole")


def test_another_configuration_does_not_continue_a_run(tmp_path: Path) -> None:
    server(config(tmp_path, rounds=1), THREE).run()
    with pytest.raises(UserError, match="another configuration"):
        server(config(tmp_path, rounds=2), THREE)


def spoiled(name: str, body: object) -> Partner:
    """A partner that is ready, and then answers everything with `body`."""
    return lambda kind, number, arrays: prepared(name) if kind == messages.PREPARE else body


def test_a_round_in_which_everybody_is_refused_ends_the_run(tmp_path: Path) -> None:
    script = {name: spoiled(name, Refusal(name, "the policy forbids it")) for name in "abc"}
    with pytest.raises(UserError, match=r"round 1: 0 usable updates of 3.*the policy forbids it"):
        server(config(tmp_path), script).run()
    assert newest(tmp_path).round == 0
    assert not (tmp_path / "results.json").exists()


def test_a_run_in_which_no_round_merged_delivers_nothing(tmp_path: Path) -> None:
    """Krum with f=1 needs five updates, and one of five partners sends what nobody can merge."""
    settings = config(tmp_path)
    settings.strategy["robust"] = {"_target_": "strategies.robust.krum.Krum", "f": 1}
    script = {name: honest(name) for name in "abcd"} | {"e": honest("e", lambda _: math.nan)}
    for _ in ("at first", "continued"):
        with pytest.raises(UserError, match="no update was merged in any of 3 rounds"):
            server(settings, script).run()
    assert newest(tmp_path).round == 3
    assert not (tmp_path / "results.json").exists()
    outcomes = {(d["partner"], d["outcome"]) for d in decisions(tmp_path)}
    assert outcomes == {*((name, "dropped") for name in "abcd"), ("e", "refused")}


def test_a_merge_that_overflows_ends_the_run_with_the_key_to_change(tmp_path: Path) -> None:
    settings = config(tmp_path)
    settings.strategy["server"]["lr"] = 2e38
    with pytest.raises(UserError, match=r"round 1: the merge is not finite.*strategy\.server\.lr"):
        server(settings, THREE).run()
    assert newest(tmp_path).round == 0


def test_a_partner_that_never_answers_is_missing(tmp_path: Path) -> None:
    results = server(config(tmp_path, rounds=1), THREE | {"d": spoiled("d", None)}).run()
    assert (results["rounds"][0]["replies"], results["rounds"][0]["missing"]) == (3, 1)
    assert decisions(tmp_path)[-1]["reason"] == "No update: no reply within 0.2 s."


RAY = (
    "\x1b[36mray::ClientAppActor.run()\x1b[39m (pid=47110815, ip=10.0.0.7)\n"
    '  File "/home/somebody/work.py", line 3, in train\nValueError: a row of the partner'
)


@pytest.mark.parametrize("at", [messages.PREPARE, messages.TRAIN, messages.EVALUATE])
def test_a_nodes_traceback_goes_nowhere(
    tmp_path: Path, at: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A node can fail at any message; of its traceback one line without colours is kept."""
    well = honest("d")

    def failing(kind: str, number: int, arrays: Arrays) -> object:
        return Error(0, RAY) if kind == at else well(kind, number, arrays)

    settings = config(tmp_path, rounds=1, partners=3)
    results = server(settings, THREE | {"d": failing}).run()
    assert results["rounds"][0]["refused"] == (at == messages.TRAIN)
    text = caplog.text + "".join(
        path.read_text() for path in tmp_path.iterdir() if path.suffix in (".json", ".jsonl")
    )
    assert not [
        word for word in ("\\u001b", "\x1b", "47110815", "somebody", "a row") if word in text
    ]
    if at == messages.TRAIN:
        refused = [d for d in decisions(tmp_path) if d["outcome"] == "refused"]
        assert [d["reason"] for d in refused] == ["Refused: no answer: ray::ClientAppActor.run()."]
    if at == messages.PREPARE:
        assert "no answer: ray::ClientAppActor.run()" in caplog.text


def test_figures_of_a_task_that_nobody_has_heard_of_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Novel(Classification):
        name = "novel"

        def round_figures(self, measured: Measured, data: DataConfig) -> dict[str, float | None]:
            return {"novelty": float(measured.confusion[0, 0]) / 2}

    monkeypatch.setitem(TASKS, "novel", Novel())
    settings = config(tmp_path)
    settings.task = "novel"
    results = server(settings, THREE, model=FourNumbers(public_rows=True)).run()
    wanted = [1.5, 3.0, 4.5]
    assert [row["novelty"] for row in results["rounds"]] == wanted
    with (tmp_path / "rounds.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["novelty"]) for row in rows] == wanted
    assert list(rows[0])[:8] == [
        *("round", "accuracy", "loss", "entity_f1", "micro_f1", "mae", "perplexity", "novelty"),
    ]
    kept = newest(tmp_path).history.rounds
    assert [record.figures for record in kept] == [{"novelty": x} for x in wanted]
