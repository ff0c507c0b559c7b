"""Reports in a browser: no errors, no requests, nothing cut, and every figure of results.json."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import UserError
from common.messages import Report
from inspection.verify import verify
from reporting.run import run_report, write_report
from reporting.source import Run
from reporting.words import count, decimal, duration, interval, memory, percent, points
from results.history import History, RoundRecord
from results.schema import results
from scripts import cli
from sweeps.study_page import study_report
from tests.browser import Page
from tests.reporting.conftest import HOSTILE
from tests.small_run import SmallRun, small_run
from tests.sweeps.test_fourway import document

TEXT = "document.getElementById('{}').textContent"


def pages(small: Run, large: Run, without_privacy: Run) -> dict[str, str]:
    return {
        "small": run_report(small),
        "large": run_report(large),
        "without privacy": run_report(without_privacy),
        "study": study_report(document([0, 1])),
    }


def expected(results: dict[str, Any]) -> dict[str, list[str]]:
    """What each section must say, straight from results.json."""
    final, cost = results["final"], results["cost"]
    partners = final["partners"].items()
    fairness = final["fairness"]
    accuracy = [
        *(percent(final[k]) for k in ("accuracy", "macro_f1", "worst_partner_accuracy")),
        *(percent(fairness["partners"][k]) for k in ("mean", "worst", "worst_decile")),
        points(final["partner_accuracy_std"]),
        decimal(fairness["partners"]["jain"]),
        decimal(final["loss"]),
        f"{final['data']['measured_rows']:,.0f}",
    ]
    for row in results["rounds"]:
        accuracy += [percent(row["accuracy"]), percent(row["worst_partner_accuracy"])]
        accuracy += [points(row["partner_accuracy_std"]), decimal(row["loss"])]
    for name, row in partners:
        accuracy += [name, percent(row["accuracy"]), percent(row["weight_share"])]
    privacy = [f"{row['epsilon']:.4f}" for _, row in partners]
    groups = [str(fairness["minimum_rows"])]
    for column, found in fairness["groups"].items():
        groups.append(column)
        if any(found["gaps"].values()):
            groups.append(decimal(found["prediction_kl"]))
        for value, row in found["values"].items():
            groups += [value, percent(row["accuracy"]), interval(row["accuracy_interval"])]
            groups += [percent(row["tpr"]), percent(row["fpr"]), f"{row['n']:,.0f}"]
        for gap in filter(None, found["gaps"].values()):
            groups += [points(gap["value"]), interval(gap["interval"])]
    paid = [
        *(duration(cost[k]) for k in ("wall_seconds", "train_seconds", "partner_seconds")),
        *(memory(cost[f"bytes_{way}_per_partner_round"]) for way in ("up", "down")),
        memory(1e6 * cost["peak_rss_mb"]),
        f"{cost['train_examples_per_second']:,.0f}",
    ]
    record = [results["config_hash"], str(results["seed"])]
    return {
        "accuracy": accuracy,
        "privacy": privacy,
        "fairness": groups,
        "cost": paid,
        "record": record,
    }


@pytest.mark.parametrize("which", ["small", "large"])
def test_every_section_holds_the_numbers_of_results_json(
    which: str, request: pytest.FixtureRequest, page: Page, place: Path
) -> None:
    run: Run = request.getfixturevalue(which)
    place.write_text(run_report(run))
    page.open(place, 1280)
    assert page.problems == []
    for section, texts in expected(run.results).items():
        shown = page.value(TEXT.format(section)).replace("\ufffd", "\x00")
        missing = [text for text in texts if text not in shown]
        assert not missing, (section, missing[:5])
    counts = page.value("document.getElementById('decisions').textContent")
    for outcome in {d["outcome"] for d in run.decisions}:
        total = sum(d["outcome"] == outcome for d in run.decisions)
        assert f"({total})" in counts, outcome
    header = page.value("document.querySelector('header').textContent")
    final = run.results["final"]
    for text in (percent(final["accuracy"]), f"ε = {final['epsilon']['max']:.2f}"):
        assert text in header
    assert all(name.replace("\x00", "\ufffd") in header for name in run.everyone)


def test_nothing_is_cut_or_fetched_at_any_width_light_or_dark(
    small: Run, large: Run, without_privacy: Run, page: Page, place: Path
) -> None:
    backgrounds = {}
    for name, text in pages(small, large, without_privacy).items():
        place.write_text(text)
        for width in (360, 1280):
            for dark in (False, True):
                page.open(place, width, dark)
                # Tables unfolded as well: what is hidden now must fit when it is opened.
                page.value("document.querySelectorAll('details').forEach(d => d.open = true)")
                wide = page.value("document.documentElement.scrollWidth")
                assert wide <= width, (name, width, wide)
                style = "getComputedStyle(document.body).backgroundColor"
                backgrounds[dark] = page.value(style)
        every = (
            "[...document.querySelectorAll('figure')].every(f => f.querySelector('details table'))"
        )
        assert page.value(every), f"{name}: a figure has no table"
        images = (
            "[...document.querySelectorAll('[role=img]')]"
            ".every(e => e.getAttribute('aria-label') || e.title)"
        )
        assert page.value(images), f"{name}: a drawing has no name"
    assert page.problems == []
    assert backgrounds[False] != backgrounds[True]


def test_the_heat_map_by_keyboard_says_the_reason(large: Run, page: Page, place: Path) -> None:
    place.write_text(run_report(large))
    page.open(place, 1280)
    page.value("document.querySelector('.cell[tabindex=\"0\"]').focus()")
    for key in ("ArrowDown", "ArrowRight", "ArrowRight"):
        page.press(key)
    told = page.value("document.querySelector('.told').textContent")
    here = page.value("document.activeElement.title")
    assert told == here
    assert ", round " in told
    column = page.value("document.activeElement.closest('td').cellIndex")
    row = page.value("document.activeElement.closest('tr').rowIndex")
    assert (column, row) == (3, 2)
    # One stop of the Tab key for the whole map.
    assert page.value("document.querySelectorAll('.cell[tabindex=\"0\"]').length") == 1
    assert page.problems == []


class Tags(HTMLParser):
    """Every tag and attribute there is."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_hostile_text_stays_text(large: Run) -> None:
    parser = Tags()
    text = run_report(large)
    parser.feed(text)
    assert parser.open == []
    assert parser.tags.count("script") == 1
    assert all(link.startswith("#") for link in parser.links)
    assert HOSTILE not in text
    assert "&lt;script&gt;alert(1)" in text


def test_a_large_federation_is_drawn_within_bounds(large: Run) -> None:
    text = run_report(large)
    assert len(text) < 3_000_000
    assert text.count('class="cell ') <= 60 * 60 + 10
    assert "240 partners are left out of the picture" in text


def test_the_same_run_gives_the_same_page(small: Run) -> None:
    assert run_report(small) == run_report(small)


def test_without_privacy_it_says_that_there_is_no_guarantee(without_privacy: Run) -> None:
    text = run_report(without_privacy)
    assert "No guarantee" in text
    assert "without differential privacy" in text
    assert "ε spent by each partner" not in text


def test_the_study_page_holds_the_figures_of_fourway_json(page: Page, place: Path) -> None:
    study = document([0, 1])
    place.write_text(study_report(study))
    page.open(place, 1280)
    assert page.problems == []
    accuracies = page.value(TEXT.format("accuracy"))
    lost = page.value(TEXT.format("attack"))
    for cell in study["cells"]:
        mean = cell["mean"]
        names = ("mean_partner_accuracy", "worst_partner_accuracy", "worst_group_accuracy")
        assert all(percent(mean[name]) in accuracies for name in names)
        if cell["attack"]:
            assert points(mean["attack_loss"]) in lost


def test_an_unfinished_run_has_no_report(tmp_path: Path) -> None:
    run = SmallRun(tmp_path / "run")
    run.round()
    with pytest.raises(UserError, match="not finished"):
        write_report(run.directory)


@pytest.mark.parametrize("break_it", [lambda p: p.write_text("{}"), lambda p: p.unlink()])
def test_a_damaged_run_is_one_line(break_it: Callable[[Path], object], tmp_path: Path) -> None:
    directory = small_run(tmp_path / "run")
    break_it(directory / "decisions.jsonl")
    with pytest.raises(UserError):
        write_report(directory)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("config_hash",), None),
        (("final", "fairness"), []),
        (("final", "fairness", "groups", "g", "gaps", "accuracy", "value"), "much"),
        (("final", "partners", "a"), {}),
        (("rounds", 0, "accuracy"), {}),
        (("cost", "peak_rss_mb"), "large"),
    ],
)
def test_figures_of_another_form_are_one_line(
    path: tuple[str | int, ...],
    value: object,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    directory = small_run(tmp_path / "run")
    results = json.loads((directory / "results.json").read_text())
    *way, last = path
    place = results
    for key in way:
        place = place[key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    (directory / "results.json").write_text(json.dumps(results))
    assert cli.main(["report", str(directory)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "do not have the form of this version" in error


def test_verify_notes_a_report_that_says_something_else(tmp_path: Path) -> None:
    directory = small_run(tmp_path / "run")
    path = write_report(directory)
    assert not [note for note in verify(directory).notes if "report.html" in note]
    path.write_text(path.read_text().replace("How good", "How bad"))
    verdict = verify(directory)
    assert verdict.problems == []
    assert "report.html: is not what this version makes of the run" in " ".join(verdict.notes)


def test_a_run_without_groups_says_so(small: Run) -> None:
    fairness = {**small.final["fairness"], "groups": {}}
    results = {**small.results, "final": {**small.final, "fairness": fairness}}
    text = run_report(replace(small, results=results))
    assert "No groups were named." in text
    assert "No group column was named (data.columns.groups)" in text


def test_other_noise_is_told(small: Run) -> None:
    data = {**small.final["data"], "partner_metrics": "private"}
    level = {"epsilon": 3.25, "delta": 0.01, "clip": 1.0, "noise_multiplier": 2.0}
    final = {**small.final, "data": data, "client_level": level}
    text = run_report(replace(small, results={**small.results, "final": final}))
    assert "carry noise of their own" in text
    assert "Whole partners are protected as well: ε = 3.2500 at δ = 10⁻²" in text
    assert "Whole partners" not in run_report(small)


def test_a_private_figure_has_its_standard_error_beside_it(small: Run) -> None:
    random = np.random.default_rng(1)
    reports = [
        Report(
            name,
            (tables := random.integers(60, 160, (2, 2, 2)).astype(float)).sum(0).tolist(),
            {"ward=a": tables[0].tolist(), "ward=b": tables[1].tolist()},
            0.5,
            900,
            7.5,
            1e-5,
            count_noise=6.0,
            examples_noise=9.0,
        )
        for name in ("north", "south")
    ]
    run = replace(small, results=results(small_history(), reports, None, 3, "f" * 64))
    final = run.final
    text = run_report(run)
    shown = [
        percent(final["accuracy"], final["accuracy_error"]),
        percent(final["mean_partner_accuracy"], final["mean_partner_accuracy_error"]),
        percent(final["worst_partner_accuracy"], final["worst_partner_accuracy_error"]),
        decimal(final["loss"], final["loss_error"]),
        count(final["data"]["measured_rows"], final["data"]["measured_rows_error"]),
    ]
    shown += [percent(p["accuracy"], p["accuracy_error"]) for p in final["partners"].values()]
    for row in final["groups"].values():
        shown += [percent(row[key], row[f"{key}_error"]) for key in ("accuracy", "tpr", "fpr")]
        shown.append(count(row["n"], row["n_error"]))
    for gap in final["fairness"]["groups"]["ward"]["gaps"].values():
        shown.append(points(gap["value"], gap["error"]))
    for figure in shown:
        assert "±" in figure
        assert figure in text


def small_history() -> History:
    history = History()
    history.rounds.append(
        RoundRecord(
            1,
            mean_partner_accuracy=0.6,
            worst_partner_accuracy=0.5,
            partner_accuracy_std=0.05,
            validation_loss=0.6,
            epsilon_max=1.0,
            replies=2,
        )
    )
    history.weight_sums = {"north": 0.5, "south": 0.5}
    return history
