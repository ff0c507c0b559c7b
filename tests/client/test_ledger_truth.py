"""What left exactly stands in the ledger; spent metrics do not stop training."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client import exact, handlers, lifetime
from client.accounting import Budget, BudgetExceeded, Segment, calibrate, epsilon
from client.division import TRAIN, VALIDATION, part
from client.ledger import Ledger, Spend, compositions, read, verify
from client.policy import Allowed, Policy
from client.session import Session
from common import messages
from common.config import config_hash
from common.messages import Report
from scripts import ledger as command
from tests.client.test_metrics import model, session  # noqa: F401

DELTA = 1e-5
OPEN = Policy(Budget(20.0, 1e-3), allow_non_private=True, allow_exact_metrics=True)


def asking(here: Session, **privacy: Any) -> Session:
    """The same session under another request."""
    config = replace(here.config, privacy=replace(here.config.privacy, **privacy))
    return replace(here, config=config, identity=config_hash(config))


def trained(here: Session, run: str, number: int = 1) -> Report:
    report = messages.unpack(handlers.train(here, *model(here, number, run)))
    assert isinstance(report, Report)
    return report


def side(here: Session, name: str, run: str | None = None) -> float:
    entries = read(here.partner.ledger)
    held = compositions(entries, run)[part(here.config, name)]
    return epsilon(held, here.config.privacy.delta).value


def test_training_without_privacy_leaves_nothing_for_a_private_run(
    session: Callable[..., Session],  # noqa: F811
) -> None:
    here = session(policy=OPEN)
    trained(asking(here, mode="none", metrics="exact"), "open")
    entries = read(here.partner.ledger)
    assert [e.body["run"] for e in entries if e.kind == "reserve"] == ["open", "open"]
    assert all(e.exact and e.body["cap"] is None for e in entries if e.kind == "reserve")
    assert side(here, TRAIN) == side(here, VALIDATION) == math.inf
    for metrics in ("private", "exact"):
        with pytest.raises(BudgetExceeded):
            trained(asking(here, metrics=metrics), f"then {metrics}")
    # The very same name does not help either.
    with pytest.raises(BudgetExceeded):
        trained(asking(here, metrics="exact"), "open")


def test_it_stands_there_before_anything_leaves(
    session: Callable[..., Session],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = asking(session(policy=OPEN), mode="none", metrics="exact")

    class StopError(Exception):
        pass

    def stop(*_: object, **__: object) -> None:
        raise StopError

    monkeypatch.setattr(handlers, "evaluate_on", stop)
    with pytest.raises(StopError):
        trained(here, "run")
    assert sum(e.exact for e in read(here.partner.ledger) if e.kind == "reserve") == 2


def test_exact_metrics_are_infinite_for_validation_records_and_training_keeps_its_epsilon(
    session: Callable[..., Session],  # noqa: F811
) -> None:
    here = asking(session(policy=OPEN), metrics="exact")
    handlers.prepare(here, *model(here, 0, "run"))
    assert side(here, VALIDATION) == math.inf, "the number of rows left with this message"
    reports = [trained(here, "run", number) for number in (1, 2)]
    assert side(here, VALIDATION) == math.inf
    assert 7.9 < reports[-1].epsilon == side(here, TRAIN) <= 8.0
    with Ledger.open(here.partner.ledger, "clinic") as ledger:
        assert ledger.epsilon(1e-4) == math.inf
    # A division that changed within the run: a record may have been on both sides.
    other = replace(here.config, data=replace(here.config.data, encoding="latin-1"))
    with pytest.raises(BudgetExceeded):
        trained(replace(here, config=other), "run", 2)
    with Ledger.open(here.partner.ledger, "clinic") as ledger:
        assert ledger.epsilon(1e-4, "run", TRAIN) == math.inf


def test_one_row_for_a_run_and_side_and_the_file_is_not_opened_for_it_again(
    session: Callable[..., Session],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = asking(session(policy=OPEN), mode="none", metrics="exact")
    for number in (1, 2):
        trained(here, "run", number)
    rows = len(read(here.partner.ledger))
    assert rows == 3
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "open", None)
        trained(here, "run", 2)
    # Another file in its place is not taken for the known one, nor another run for this one.
    exact.note_exact(here.config, here.partner, "second")
    assert len(read(here.partner.ledger)) == rows + 2
    for file in here.partner.directory.glob("ledger.sqlite*"):
        file.unlink()
    exact.note_exact(here.config, here.partner, "run")
    assert len(read(here.partner.ledger)) == rows
    assert verify(here.partner.ledger) == []


LIMIT = Policy(Budget(9.0, 2e-4), groups=Allowed(frozenset({"ward"})))


@pytest.mark.parametrize("noise", [0.535, 0.0])
def test_with_the_validation_budget_spent_metrics_are_withheld_and_training_goes_on(
    session: Callable[..., Session],  # noqa: F811
    capsys: pytest.CaptureFixture[str],
    noise: float,
) -> None:
    here = session(policy=LIMIT)
    validation = part(here.config, VALIDATION)
    with Ledger.open(here.partner.ledger, "clinic") as ledger:
        ledger.reserve(
            Spend("earlier", "e", [Segment(noise, 1.0, 1)], 1e-4, "metrics", validation), None
        )
    reports = [trained(here, "run", number) for number in (1, 2)]
    last = messages.unpack(handlers.evaluate(here, *model(here, 2)))
    for report in (*reports, last):
        assert not np.any(report.confusion)
        assert report.count_noise == 0.0
        assert math.isnan(report.loss)
    assert 7.9 < reports[-1].epsilon <= 8.0
    rows = [e for e in read(here.partner.ledger) if e.kind == "refuse"]
    assert [e.withheld for e in rows] == [True], "one row says it for the run"
    command.show(here.partner.ledger)
    out = capsys.readouterr().out
    assert "1 times metrics were withheld" in out
    assert "requests were refused" not in out


def test_counts_never_carry_more_than_twice_the_noise_that_was_planned(
    session: Callable[..., Session],  # noqa: F811
) -> None:
    """What is left shrinks run by run: noise grows to its bound, and then nothing is told."""
    here = session(policy=LIMIT)
    planned = trained(here, "first").count_noise
    noises = [
        messages.unpack(handlers.evaluate(here, *model(here, 2, f"later {number}"))).count_noise
        for number in range(9)
    ]
    assert max(noises) <= 2 * planned
    assert max(noises) > planned
    assert noises[-1] == 0.0


def test_show_tells_sides_exact_releases_and_refusals_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, cap = tmp_path / "l.db", Budget(2.0, DELTA)
    with Ledger.open(path, "d") as ledger:
        ledger.reserve(Spend("r", "1", [Segment(2.0, 0.1, 5)], DELTA, "training", "x/train"), cap)
        ledger.reserve(
            Spend("r", "2", [exact.EXACTLY], DELTA, "exact metrics", "x/validation"), None
        )
        with pytest.raises(BudgetExceeded):
            ledger.reserve(
                Spend("r", "3", [Segment(0.2, 1.0, 1)], DELTA, "training", "x/train"), cap
            )
        spent = ledger.epsilon(DELTA, side=TRAIN)
    command.show(path)
    out = capsys.readouterr().out
    assert "Spent: epsilon inf" in out
    assert f"train records: epsilon {spent:.4g}" in out
    assert "validation records: epsilon inf" in out
    assert "Left without noise in run r: exact metrics" in out
    assert "1 requests were refused" in out
    assert "withheld" not in out


def test_a_ledger_from_before_is_read_as_it_was(tmp_path: Path) -> None:
    """Rows without a part, and refusals that do not say what they were."""
    with Ledger.open(tmp_path / "l.db", "d") as ledger, ledger._storage.appending() as (_, add):
        body = {"run": "r", "release": "1", "segments": [[1.0, 0.1, 5]], "delta": DELTA}
        add("refuse", {**body, "what": "training", "cap": [8.0, DELTA], "reason": "no"})
    assert not read(tmp_path / "l.db")[-1].withheld


# --- the lifetime limit over several runs ---------------------------------------------------------

STEPS = Segment(1.2, 0.1, 20)


def test_a_later_run_is_held_to_the_filter_and_not_to_composed_curves(tmp_path: Path) -> None:
    """Its mechanism is chosen after the first run's outputs: curves do not compose then."""
    both = epsilon([STEPS, STEPS], DELTA).value
    cap = Budget(both * 1.001, DELTA)
    with Ledger.open(tmp_path / "l.db", "d") as ledger:
        ledger.reserve(Spend("a", "1", [STEPS], DELTA, "", "x/train"), cap)
        with pytest.raises(BudgetExceeded):
            ledger.reserve(Spend("b", "2", [STEPS], DELTA, "", "x/train"), cap)
    # Two parts of one run were planned together.
    roomy = Budget(both * 1.001, 2 * DELTA)
    with Ledger.open(tmp_path / "m.db", "d") as ledger:
        for release in "12":
            ledger.reserve(Spend("a", release, [STEPS], DELTA, "", "x/train"), roomy)


@pytest.mark.parametrize("spent", [[], [STEPS], [STEPS, Segment(30.0, 1.0, 1)]])
def test_noise_for_what_is_left_fills_the_limit_and_keeps_it(spent: list[Segment]) -> None:
    limit = Budget(8.0, DELTA)
    sigma = lifetime.noise_within(limit, 0.1, 20, spent, planned=False)
    held = [*spent, Segment(sigma, 0.1, 20)]
    assert 7.9 < lifetime.counted(held, limit, planned=False) <= 8.0
    assert lifetime.allowed(held, limit, planned=False)
    # The filter's figure bounds the composition at the limit's own delta.
    assert epsilon(held, DELTA).value < 8.0


def test_the_filters_order_depends_on_the_limit_alone() -> None:
    assert lifetime.filter_order(Budget(8.0, DELTA)) < lifetime.filter_order(Budget(1.0, DELTA))
    with pytest.raises(BudgetExceeded) as caught:
        lifetime.noise_within(
            Budget(1.0, DELTA), 0.1, 20, [exact.EXACTLY], planned=False, dataset="notes"
        )
    assert "inf" in caught.value.detail
    assert "inf" not in caught.value.sentence


def test_a_simulations_limit_adds_no_noise_to_its_only_run(
    session: Callable[..., Session],  # noqa: F811
) -> None:
    """One run may use half of a limit's delta, and a simulation's limit is twice its run's."""
    here = asking(session(policy=Policy.permissive(8.0, 2e-4)), metrics="exact")
    prepared = messages.unpack(handlers.prepare(here, *model(here, 0, "run")))
    assert prepared.noise_multiplier == calibrate(8.0, 1e-4, 60 / 400, 2)
    # A partner whose limit is just the run's pays a little more noise for later choices.
    tight = replace(here.partner, policy=replace(OPEN, budget=Budget(8.0, 1e-4)))
    more = messages.unpack(handlers.prepare(replace(here, partner=tight), *model(here, 0, "run")))
    assert 1.0 < more.noise_multiplier / prepared.noise_multiplier < 1.05
