"""Reports of a small run, of one with hostile names, of a large one, and of a study."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.evaluation import Evaluation
from common.messages import Report
from reporting.source import Run, read_run
from results.history import History, RoundRecord
from results.schema import results
from strategies.records import OUTCOMES
from tests.browser import Page, browser, chromium
from tests.small_run import small_run

HOSTILE = """<script>alert(1)</script>"'&<b>\u2028\x00"""


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return read_run(small_run(tmp_path_factory.mktemp("small") / "run"))


@pytest.fixture(scope="session")
def large() -> Run:
    """300 partners, 90 rounds, every outcome, names and reasons that would break markup."""
    random = np.random.default_rng(0)
    names = [f"clinic-{n:03d}" for n in range(299)] + [f"zz {HOSTILE}"]
    history = History()
    decisions = []
    for number in range(1, 91):
        history.rounds.append(
            RoundRecord(
                number,
                accuracy=0.5 + number / 300,
                loss=0.6,
                mean_partner_accuracy=0.6,
                mean_partner_accuracy_error=0.0,
                worst_partner_accuracy=0.4,
                worst_partner_accuracy_error=0.0,
                partner_accuracy_std=0.05,
                validation_loss=0.6,
                epsilon_max=number / 12,
                replies=300,
            )
        )
        for name in names:
            outcome = str(random.choice(sorted(OUTCOMES))) if name > "clinic-280" else "merged"
            decisions.append(
                {
                    "partner": name,
                    "round": number,
                    "outcome": outcome,
                    "reason": f"Because {HOSTILE}.",
                    "weight_given": 1 / 300,
                    "appeal": {"loss_without": 0.51, "loss_with": 0.5}
                    if outcome == "readmitted"
                    else None,
                }
            )
    history.weight_sums = dict.fromkeys(names, 1.0)
    reports = [
        Report(name, random.integers(5, 60, (2, 2)).tolist(), {}, 0.5, 100, 7.5, 1e-5)
        for name in names
    ]
    groups = {f"site={n:02d}": random.integers(2, 40, (2, 2)) * 1.0 for n in range(70)}
    groups[f"{HOSTILE}={HOSTILE}"] = np.array([[40.0, 9.0], [12.0, 39.0]])
    test = Evaluation(sum(groups.values()), groups, 0.4, 1000)  # type: ignore[arg-type]
    return Run(
        config=_config(),
        results=results(history, reports, test, 3, "f" * 64),
        decisions=decisions,
        entries=[],
        simulated=False,
        attackers=[names[-1]],
    )


def _config():  # type: ignore[no-untyped-def]
    from common.config import Config

    config = Config()
    config.data.labels = ["no", HOSTILE]
    config.attack = {"_target_": "strategies.attacks.sign_flip.SignFlip"}
    return config


@pytest.fixture(scope="session")
def without_privacy(small: Run) -> Run:
    config = replace(small.config, privacy=replace(small.config.privacy, mode="none"))
    return replace(small, config=config)


@pytest.fixture(scope="session")
def page() -> Iterator[Page]:
    program = chromium()
    if program is None:
        pytest.skip("no Chromium on this machine")
    with browser(program) as found:
        yield found


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "report.html"
