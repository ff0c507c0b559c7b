"""Private metrics: the claimed sensitivity, the size of the noise, what the ledger holds."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from flwr.app import RecordDict
from numpy.typing import NDArray

from client import handlers, lifetime, metrics
from client.accounting import Budget, BudgetExceeded, Segment, epsilon
from client.ledger import Ledger, Spend, compositions
from client.metrics import COUNT_NOISE, release, sensitivity
from client.partner import Partner
from client.policy import Allowed, Policy, PolicyRefusal
from client.session import Session
from common import messages
from common.config import Config, config_hash, validate
from common.data.table import Table, Texts
from common.device import Device
from common.errors import UserError
from common.evaluation import Evaluation
from common.examples.prepare import prepare
from common.grid import ROUNDING
from common.messages import Request
from common.metrics import accuracy, accuracy_error, rates, rates_error
from common.models.build import build
from common.tasks import LOSS_BOUND
from results.partners import loss_error
from simulation.seeded_streams import SeededStream

VALUES = {"ward": ["a", "b"], "sex": ["f", "m"]}
CPU = Device(torch.device("cpu"), torch.float32)


def evaluation(rows: list[tuple[int, int, float, str, str]]) -> Evaluation:
    """From (true, predicted, loss, ward, sex) per row, as common.evaluation counts."""
    confusion, groups = np.zeros((2, 2)), {}
    for true, predicted, _, ward, sex in rows:
        confusion[true, predicted] += 1
        for key in (f"ward={ward}", f"sex={sex}"):
            groups.setdefault(key, np.zeros((2, 2)))[true, predicted] += 1
    loss = float(np.mean([row[2] for row in rows])) if rows else math.nan
    return Evaluation(confusion, groups, loss, len(rows))


def some_rows(n: int, seed: int) -> list[tuple[int, int, float, str, str]]:
    g = np.random.default_rng(seed)
    return [
        (
            int(g.integers(2)),
            int(g.integers(2)),
            float(g.uniform(0, LOSS_BOUND)),
            str(g.choice(["a", "b", "undeclared"])),
            str(g.choice(["f", "m"])),
        )
        for _ in range(n)
    ]


def vector(
    measured: Evaluation, released: Callable[..., metrics.Metrics] = release
) -> NDArray[np.float64]:
    """What the noise of one release is added to, read off a release without noise.

    The scaled sum of losses is the mean times the rows.
    """
    told = released(measured, VALUES, 0.0, SeededStream(0))
    rows = told.confusion.sum()
    loss = told.loss * rows / LOSS_BOUND if rows > 0 else 0.0
    return np.concatenate(
        [told.confusion.ravel(), *(told.groups[k].ravel() for k in sorted(told.groups)), [loss]]
    )


def worst_distance(released: Callable[..., metrics.Metrics] = release) -> float:
    """The largest L2 distance that one more record made, over many data sets and records."""
    found = 0.0
    for seed in range(200):
        rows = some_rows(1 + seed % 7, seed)
        extra = (seed % 2, seed // 2 % 2, LOSS_BOUND, "ab"[seed % 2], "fm"[seed // 2 % 2])
        near = vector(evaluation([*rows, extra]), released) - vector(evaluation(rows), released)
        found = max(found, float(np.linalg.norm(near)))
    return found


def test_one_record_moves_a_release_by_the_claimed_amount_at_most() -> None:
    found = worst_distance()
    # Reached: the bound is not only respected, no smaller one would hold.
    assert found == pytest.approx(sensitivity(2), rel=1e-12)


def test_a_record_counted_twice_breaks_the_bound() -> None:
    def twice(measured: Evaluation, *rest: object) -> metrics.Metrics:
        told = release(measured, *rest)  # type: ignore[arg-type]
        return replace(told, confusion=told.confusion + sum(told.groups.values()))

    assert worst_distance(twice) > sensitivity(2) * 1.05


def test_a_loss_without_bound_breaks_the_bound() -> None:
    rows = some_rows(5, 1)
    outlier = evaluation([*rows, (0, 0, 50.0, "a", "f")])
    scaled = outlier.loss * outlier.rows / LOSS_BOUND - sum(r[2] for r in rows) / LOSS_BOUND
    assert math.hypot(scaled, math.sqrt(3)) > sensitivity(2) * 2


def test_unbiased_with_the_stated_variance_and_standard_errors() -> None:
    rows = some_rows(400, 3)
    truth, stream = evaluation(rows), SeededStream(0)
    told = [release(truth, VALUES, 1.5, stream) for _ in range(4000)]
    # Rounding to the public grid is part of the sensitivity.
    noise = 1.5 * 2.0 * (1 + ROUNDING)
    assert {t.noise for t in told} == {noise}
    counts = np.stack([t.confusion for t in told])
    assert np.abs(counts.mean(0) - truth.confusion).max() < 4.5 * noise / math.sqrt(4000)
    assert counts.std(0) == pytest.approx(np.full((2, 2), noise), rel=0.05)
    ward = np.stack([t.groups["ward=b"] for t in told])
    assert np.abs(ward.mean(0) - truth.groups["ward=b"]).max() < 4.5 * noise / math.sqrt(4000)
    assert "ward=undeclared" not in told[0].groups
    # The standard errors that stand beside the figures, against what the figures do.
    scores = np.array([accuracy(t.confusion) for t in told])
    assert accuracy_error(truth.confusion, noise) == pytest.approx(scores.std(), rel=0.06)
    both = np.array([rates(t.confusion) for t in told])
    assert rates_error(truth.confusion, noise) == pytest.approx(tuple(both.std(0)), rel=0.06)
    report = messages.Report("p", truth.confusion.tolist(), {}, truth.loss, 1, count_noise=noise)
    losses = np.array([t.loss for t in told])
    assert abs(losses.mean() - truth.loss) < 0.02
    assert loss_error(report) == pytest.approx(losses.std(), rel=0.06)


def test_post_processing_stays_in_range() -> None:
    truth, stream = evaluation(some_rows(3, 3)), SeededStream(0)
    for _ in range(200):
        told = release(truth, VALUES, 20.0, stream)
        assert math.isnan(told.loss) or 0 <= told.loss <= LOSS_BOUND
        for table in (told.confusion, *told.groups.values()):
            for value in (accuracy(table), *rates(table)):
                assert math.isnan(value) or 0 <= value <= 1


def test_the_ledger_composes_sides_in_parallel_and_all_else_in_sequence(tmp_path: Path) -> None:
    train, told = Segment(1.0, 0.1, 10), Segment(2.0, 1.0, 1)

    def reserve(ledger: Ledger, segment: Segment, part: str, run: str = "r") -> None:
        name = f"{run}/{len(ledger.entries())}"
        ledger.reserve(Spend(run, name, [segment], 1e-5, "", part), None)

    with Ledger.open(tmp_path / "l.db", "d") as ledger:
        reserve(ledger, train, "x/train")
        reserve(ledger, told, "x/validation")
        reserve(ledger, told, "x/validation", "other")
        alone, both = epsilon([train], 1e-5).value, epsilon([told, told], 1e-5).value
        assert ledger.epsilon(1e-5) == max(alone, both)
        assert ledger.epsilon(1e-5, run="other") == epsilon([told], 1e-5).value
        assert ledger.composed_with("x/train") == [train]
        assert ledger.composed_with("x/validation", other_than="r") == [told]
        # A spend on all records is added to each side.
        reserve(ledger, told, "")
        assert ledger.composed_with("x/train") == [train, told]
        assert ledger.epsilon(1e-5) == epsilon([told, told, told], 1e-5).value
        # Under another division a training record may be a validation record: all adds up.
        assert len(ledger.composed_with("y/train")) == 4
        reserve(ledger, train, "y/train")
        assert ledger.composed_with("x/train") == [*[train, told, told, told], train]
        assert ledger.epsilon(1e-5) == epsilon([train, train, told, told, told], 1e-5).value
        assert set(compositions(ledger.entries())) == {""}


def test_the_cap_counts_sides_apart(tmp_path: Path) -> None:
    told = Segment(2.0, 1.0, 1)
    cap = Budget(epsilon([told], 1e-5).value * 1.01, 2e-5)
    with Ledger.open(tmp_path / "l.db", "d") as ledger:
        ledger.reserve(Spend("r", "a", [told], 1e-5, "", "x/train"), cap)
        ledger.reserve(Spend("r", "b", [told], 1e-5, "", "x/validation"), cap)
        with pytest.raises(BudgetExceeded):
            ledger.reserve(Spend("r", "c", [told], 1e-5, "", "x/validation"), cap)
        with pytest.raises(BudgetExceeded):
            ledger.reserve(Spend("r", "d", [told], 1e-5, ""), cap)


@pytest.fixture
def session(
    tiny_bert: Path, reviews: tuple[list[str], list[int]], tmp_path: Path
) -> Callable[..., Session]:
    """A deployed partner (its noise comes from the operating system) without Flower."""
    texts, labels = reviews
    config = Config()
    config.model.base, config.model.max_length = str(tiny_bert), 24
    config.data.columns.groups, config.data.group_values = ["ward"], {"ward": ["a", "b"]}
    config.train.batch_size, config.train.physical_batch = 60, 64
    config.privacy.metrics, config.privacy.delta, config.run.rounds = "private", 1e-4, 2
    network = build(config.model, ("bad", "good"), 0)
    network.trained.eval()

    def table(start: int, stop: int) -> Table:
        wards = np.array(["a", "b", "rare-secret"], dtype=object)[np.arange(start, stop) % 3]
        chosen = Texts(pa.array(texts[start:stop], pa.large_string()))
        values = np.array(labels[start:stop])
        where = np.arange(start, stop)
        return Table(
            *(chosen, values, ("bad", "good"), {"ward": wards}, None),
            *(where.astype(np.uint64), ("notes.csv",), np.zeros_like(where), where),
        )

    def make(train_rows: int = 400, policy: Policy | None = None) -> Session:
        partner = Partner(
            "clinic",
            table(0, train_rows),
            table(450, 600),
            tmp_path / "state",
            tmp_path / "cache",
            policy or Policy(Budget(20.0, 1e-3), groups=Allowed(frozenset({"ward"}))),
            None,
        )
        examples = [
            prepare(t.texts, t.labels, network, config.model, CPU, tmp_path / "cache")
            for t in (partner.train, partner.validation)
        ]
        return Session(validate(config), config_hash(config), partner, network, CPU, *examples)

    return make


def model(session: Session, number: int, run: str = "run") -> tuple[Request, RecordDict]:
    request = Request(run, number)
    arrays = {**session.network.read(), **session.network.constants()}
    return request, messages.pack(request, arrays)


def test_nothing_exact_leaves_and_the_ledger_holds_what_was_released(
    session: Callable[..., Session],
) -> None:
    here = session()
    exact = handlers.evaluate_on(
        here.network, here.validation, handlers.group_values(here.partner.validation), CPU
    )
    prepared = messages.unpack(handlers.prepare(here, *model(here, 0)))
    reports = [messages.unpack(handlers.train(here, *model(here, number))) for number in (1, 2)]
    reports.append(messages.unpack(handlers.evaluate(here, *model(here, 2))))
    # The number of rows: one noisy figure in the whole run, and all that follows from it.
    told = {prepared.examples, *(r.examples for r in reports)}
    assert len(told) == 1
    assert told != {400.0}
    assert abs(told.pop() - 400) < 6 * COUNT_NOISE
    for report in reports:
        counts = np.array([report.confusion, *report.groups.values()])
        assert set(report.groups) == {"ward=a", "ward=b"}
        assert not np.any(counts == np.round(counts)), "an exact count left"
        assert abs(counts[0].sum() - exact.rows) < 6 * 2 * report.count_noise
        assert report.loss != exact.loss
        assert report.train_seconds == report.frozen_seconds == report.message_seconds == 0.0
        assert report.trained_examples in (0.0, 60.0)
        text = json.dumps(asdict(report))
        assert "rare-secret" not in text
        assert "400.0" not in text
    with Ledger.open(here.partner.ledger, "clinic") as ledger:
        held = compositions(ledger.entries(), "run")
        train = next(v for k, v in held.items() if k.endswith("/train"))
        assert train[0] == Segment(COUNT_NOISE, 1.0, 1)
        validation = next(v for k, v in held.items() if "validation" in k)
        assert [s.steps for s in validation] == [1, 1, 1]
        assert 7.9 < epsilon(validation, 1e-4).value <= 8.0
        assert 7.9 < epsilon(train, 1e-4).value <= 8.0
        assert reports[-1].epsilon == max(
            epsilon(train, 1e-4).value, epsilon(validation, 1e-4).value
        )


def test_a_run_gets_no_more_metrics_than_its_noise_was_solved_for(
    session: Callable[..., Session],
) -> None:
    here = session()
    reports = [messages.unpack(handlers.evaluate(here, *model(here, 2))) for _ in range(4)]
    assert [r.count_noise > 0 for r in reports] == [True, True, True, False]
    assert not np.any(reports[-1].confusion)
    assert math.isnan(reports[-1].loss)
    # Another run plans on what this one left of the lifetime budget: with more noise.
    again = messages.unpack(handlers.evaluate(here, *model(here, 2, "second")))
    tight = replace(here.partner, policy=replace(here.partner.policy, budget=Budget(11.0, 1e-3)))
    less = messages.unpack(
        handlers.evaluate(replace(here, partner=tight), *model(here, 2, "third"))
    )
    assert less.count_noise > again.count_noise


def test_an_adjacent_data_set_changes_nothing_that_is_computed_from_the_noisy_count(
    session: Callable[..., Session],
) -> None:
    """With the noisy count fixed, N and N+1 training rows plan the very same mechanism."""
    one = session(400)
    first = messages.unpack(handlers.prepare(one, *model(one, 0)))
    other = session(401)
    second = messages.unpack(handlers.prepare(other, *model(other, 0)))
    assert first == second


def test_exact_metrics_are_refused_by_the_policy(session: Callable[..., Session]) -> None:
    here = session()
    config = replace(here.config, privacy=replace(here.config.privacy, metrics="exact"))
    with pytest.raises(PolicyRefusal, match=r"exact metrics.*privacy\.metrics=private"):
        handlers.train(replace(here, config=config), *model(here, 1))
    assert not here.partner.ledger.exists()


def test_too_few_rows_are_refused_without_their_number(session: Callable[..., Session]) -> None:
    here = session(20)
    config = replace(here.config, train=replace(here.config.train, batch_size=400))
    with pytest.raises(UserError, match="too few training rows") as caught:
        handlers.prepare(replace(here, config=config), *model(here, 0))
    assert "20 " not in str(caught.value)


def test_undeclared_group_values_and_privacy_off_are_refused() -> None:
    config = Config()
    config.data.columns.groups, config.privacy.metrics = ["ward"], "private"
    with pytest.raises(UserError, match=r"data\.group_values: must list the values of ward"):
        validate(config)
    config.data.group_values = {"ward": ["a"]}
    validate(config)
    config.privacy.mode = "none"
    with pytest.raises(UserError, match=r"privacy\.metrics"):
        validate(config)


def test_a_second_run_trains_on_what_the_first_left_and_a_third_on_next_to_nothing(
    session: Callable[..., Session],
) -> None:
    limit = Budget(14.0, 2e-4)
    here = session(policy=Policy(limit, groups=Allowed(frozenset({"ward"}))))
    noises = []
    for run in ("first", "second"):
        prepared = messages.unpack(handlers.prepare(here, *model(here, 0, run)))
        noises.append(prepared.noise_multiplier)
        for number in (1, 2):
            handlers.train(here, *model(here, number, run))
    # Both depend on a noisy count of the rows, hence no closer bound.
    assert noises[1] > noises[0]
    with Ledger.open(here.partner.ledger, "clinic") as ledger:
        held = ledger.composed_with(metrics.part(here.config, metrics.TRAIN))
        assert 13.9 < lifetime.counted(held, limit, planned=False) <= 14.0
    # All but nothing is left: a third run would drown in noise, or is refused.  How much noise
    # depends on noisy counts, and on where the search for the second run's noise stopped.
    try:
        third = messages.unpack(handlers.prepare(here, *model(here, 0, "third")))
    except BudgetExceeded:
        return
    assert third.noise_multiplier > 2 * noises[1]
