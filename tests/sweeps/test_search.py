"""The search: its space, its loop over a kill, its pruner; Optuna is real, trials are formulas."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from common.errors import UserError
from hydra_plugins.fedaccord_sweeper.optuna_sweeper import OptunaSweeperConf
from results.history import RoundRecord
from sweeps.pruning import pruner_of
from sweeps.search import search
from sweeps.study import open_study, space

PARAMS = {"a": "tag(log,interval(0.01,1))", "b": "choice(x,y)"}


def settings(**chosen: Any) -> dict[str, Any]:
    return {**vars(OptunaSweeperConf()), "params": PARAMS, "trials": 8, "startup": 3, **chosen}


class Launcher:
    """Answers at once; `die_at` is the trial in which the process is killed."""

    def __init__(self, die_at: int | None = None) -> None:
        self.die_at = die_at
        self.launched: list[tuple[int, list[str]]] = []

    def launch(self, jobs: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        returned = []
        for number, overrides in enumerate(jobs, initial_job_idx):
            self.launched.append((number, list(overrides)))
            if number == self.die_at:
                raise KeyboardInterrupt
            given = dict(o.split("=") for o in overrides)
            values = {
                "accuracy": 1 - abs(math.log10(float(given["a"])) + 1) - 0.1 * (given["b"] == "x"),
                "epsilon": math.inf if given["b"] == "x" else 8.0,
            }
            job = JobReturn()
            job.status = JobStatus.COMPLETED
            state = "failed" if number == 2 else "finished"
            job.return_value = SimpleNamespace(
                number=number, state=state, values={} if state == "failed" else values
            )
            returned.append(job)
        return returned


def run(place: Path, launcher: Launcher, **chosen: Any) -> optuna.Study:
    config = SimpleNamespace(hydra=SimpleNamespace(sweep=SimpleNamespace(dir=str(place))))
    context = SimpleNamespace(config_loader=None)
    return search(settings(**chosen), config, context, launcher, ["c=1"])  # type: ignore[arg-type]


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsga2"])
def test_a_search_that_was_killed_goes_on_as_it_would_have_gone(
    tmp_path: Path, sampler: str
) -> None:
    whole, first, second = Launcher(), Launcher(die_at=4), Launcher()
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    study = run(tmp_path / "whole", whole, sampler=sampler)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", first, sampler=sampler)
    run(tmp_path / "cut", second, sampler=sampler)
    assert whole.launched == first.launched[:4] + second.launched
    assert [number for number, _ in second.launched] == [4, 5, 6, 7]
    assert first.launched[4] == second.launched[0]
    assert len({tuple(o) for _, o in whole.launched}) == 8
    states = [t.state for t in study.trials]
    assert states == [TrialState.COMPLETE] * 2 + [TrialState.FAIL] + [TrialState.COMPLETE] * 5
    assert all(o[0] == "c=1" and len(o) == 3 for _, o in whole.launched)
    # A third start finds nothing to do.
    third = Launcher()
    run(tmp_path / "cut", third, sampler=sampler)
    assert third.launched == []


def test_several_objectives_side_by_side(tmp_path: Path) -> None:
    launcher = Launcher()
    study = run(tmp_path, launcher, objectives=["accuracy", "epsilon"], jobs=3)
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert [n for n, _ in launcher.launched] == list(range(8))
    front = study.best_trials
    assert front
    assert all(t.params["b"] == "y" or t.values[1] > 1e5 for t in front)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("a=interval(1,2)", FloatDistribution(1.0, 2.0)),
        ("a=tag(log,interval(0.1,10))", FloatDistribution(0.1, 10.0, log=True)),
        ("a=int(interval(1,9))", IntDistribution(1, 9)),
        ("a=tag(log,int(interval(1,64)))", IntDistribution(1, 64, log=True)),
        ("a=range(0,10,3)", IntDistribution(0, 9, step=3)),
        ("a=range(10,0,-2)", IntDistribution(2, 10, step=2)),
        ("a=1,2", CategoricalDistribution(["1", "2"])),
        ("a=choice(x,[1,2])", CategoricalDistribution(["x", "[1,2]"])),
    ],
)
def test_hydra_syntax_as_a_search_space(override: str, expected: object) -> None:
    found, fixed = space(OverridesParser.create().parse_overrides([override, "z=1"]))
    assert found == {"a": expected}
    assert fixed == ["z=1"]


def test_a_later_override_takes_a_key_out_of_the_search() -> None:
    parsed = OverridesParser.create().parse_overrides(["a=1,2", "a=3"])
    assert space(parsed) == ({}, ["a=3"])


@pytest.mark.parametrize(
    ("chosen", "line"),
    [
        ({"objectives": ["acuracy"]}, "objectives: there is no 'acuracy'; choose from accuracy"),
        ({"objectives": []}, "objectives: must not be empty"),
        (
            {"pruner": "median", "objectives": ["accuracy", "epsilon"]},
            "use it .*=\\[accuracy\\]",
        ),
        ({"pruner": "mediun"}, "hydra.sweeper.pruner: must be one of none, median, halving"),
        ({"sampler": "grid"}, "hydra.sweeper.sampler: must be one of tpe"),
        ({"params": {"a": "tag(log,interval(0,1))"}}, "a: "),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, chosen: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line):
        run(tmp_path, Launcher(), **chosen)


def test_a_trial_that_falls_behind_is_pruned(tmp_path: Path) -> None:
    chosen = settings(pruner="median", startup=2)
    study = open_study(chosen, tmp_path)
    rounds = {"good": [0.5, 0.7, 0.8], "fine": [0.5, 0.6, 0.7], "bad": [0.4, 0.41, 0.42]}
    for number, (name, scores) in enumerate(rounds.items()):
        study.ask()
        stop = Event()
        pruner = pruner_of(chosen, tmp_path, number, 3, stop)
        assert pruner is not None
        for place, score in enumerate(scores, 1):
            pruner.round_ended(RoundRecord(place, accuracy=score))
            if stop.is_set():
                break
        assert (pruner.pruned, place) == ((True, 2) if name == "bad" else (False, 3))
        study.tell(
            number,
            state=TrialState.PRUNED if pruner.pruned else None,
            values=None if pruner.pruned else [scores[-1]],
        )
    assert "41.0 % after round 2 of 3" in pruner.reason
    assert pruner_of(settings(), tmp_path, 0, 3, Event()) is None
