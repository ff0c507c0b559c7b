"""The report of a sweep in a browser: every figure, every link, nothing cut, nothing fetched."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from reporting.words import percent
from scripts.sweep_show import main as show
from sweeps.analysis import Analysis
from sweeps.page import shown, sweep_report, write_sweep_report
from sweeps.privacy import Composed
from sweeps.records import Sweep, read_sweep
from tests.browser import Page
from tests.reporting.test_report import TEXT, Tags
from tests.small_sweep import small_sweep

COMPOSED = Composed(27, 9, 41.5, 1e-5, 7.9, "rdp")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return small_sweep(tmp_path_factory.mktemp("sweep") / "s")


def empty(place: Path) -> Sweep:
    small_sweep(place, trouble=False)
    (place / "trials.jsonl").unlink()
    return read_sweep(place)


def test_every_figure_is_on_the_page(sweep: Sweep, page: Page) -> None:
    path = write_sweep_report(sweep, COMPOSED)
    analysis = Analysis(sweep)
    page.open(path, 1280)
    assert page.problems == []
    trials = page.value(TEXT.format("trials"))
    for number, trial in sweep.trials.items():
        values = sweep.measured.get(number, {})
        assert all(shown(n, values.get(n)) in trials for n in ("accuracy", "epsilon"))
        assert trial.state in trials
        assert trial.reason in trials
    front = page.value(TEXT.format("front"))
    assert all(s.name in front for s in analysis.settings)
    assert all(percent(s.values["accuracy"]).split()[0] in front for s in analysis.front)
    importance = page.value(TEXT.format("importance"))
    assert all(percent(v) in importance and k in importance for k, v in analysis.importance.items())
    told = page.value(TEXT.format("privacy"))
    assert "41.5000" in told
    assert "7.9000" in told
    assert "ε = 41.50" in page.value("document.querySelector('header').textContent")
    assert all(o in page.value(TEXT.format("record")) for o in analysis.best_overrides())
    # Links lead to the trials' own reports, and a twin's to that of the first.
    links = page.value(
        "[...document.querySelectorAll('#trials tbody a')].map(a => a.getAttribute('href'))"
    )
    assert links == [*(f"{n}/report.html" for n in range(36)), "0/report.html"]
    assert all((sweep.directory / link).exists() for link in links)


def test_nothing_is_cut_or_fetched(sweep: Sweep, tmp_path: Path, page: Page) -> None:
    pages = {
        "whole": sweep_report(Analysis(sweep), COMPOSED),
        "one objective": sweep_report(
            Analysis(small_sweep(tmp_path / "one", objectives=("accuracy",))), None
        ),
        "nothing yet": sweep_report(Analysis(empty(tmp_path / "none")), None),
    }
    for name, text in pages.items():
        path = tmp_path / "report.html"
        path.write_text(text)
        parser = Tags()
        parser.feed(text)
        assert parser.open == []
        assert parser.tags.count("script") == 1
        for width in (360, 1280):
            for dark in (False, True):
                page.open(path, width, dark)
                page.value("document.querySelectorAll('details').forEach(d => d.open = true)")
                assert page.value("document.documentElement.scrollWidth") <= width, (name, width)
        assert page.value(
            "[...document.querySelectorAll('figure')].every(f => f.querySelector('details table'))"
        ), name
        assert page.value(
            "[...document.querySelectorAll('[role=img]')]"
            ".every(e => e.getAttribute('aria-label') || e.title)"
        ), name
        if name == "whole":
            # The drawing has one line a setting, and no words of one axis stand on another's.
            assert page.value("document.querySelectorAll('.parallel polyline').length") == 12
            boxes = page.value(
                "[...document.querySelectorAll('.parallel > b')].map(b => {"
                "const r = b.getBoundingClientRect(); return [r.left, r.right]; })"
            )
            assert all(a[1] <= b[0] for a, b in itertools.pairwise(boxes))
    assert page.problems == []


def test_the_same_sweep_gives_the_same_page(sweep: Sweep) -> None:
    pages = {sweep_report(Analysis(read_sweep(sweep.directory)), COMPOSED) for _ in range(2)}
    assert len(pages) == 1
    assert "&lt;b&gt;0&lt;/b&gt;" in pages.pop()


def test_the_terminal_says_the_same(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    write_sweep_report(sweep, COMPOSED)
    assert show("show", str(sweep.directory)) == 0
    out = capsys.readouterr().out
    assert "39 of 39 trials" in out
    assert "best: privacy=none strategy.server.lr=0.7 (accuracy 80.0 ± 0.2" in out
    assert f"fedaccord simulate @{sweep.directory / 'best.txt'}" in out
    assert "trial 37 pruned: accuracy 41.0 % after round 2 of 8" in out
