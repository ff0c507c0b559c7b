"""What a sweep has found, on figures that are known: means, the front, importance, the curve."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from common.config import config_hash
from common.errors import UserError
from scripts.compose import compose_config, expand
from sweeps.analysis import Analysis, Setting
from sweeps.curve import curve, markdown, write_curve
from sweeps.objectives import pareto
from sweeps.page import best_text
from tests.small_sweep import RATES, accuracy, overrides, small_sweep


@pytest.fixture(scope="module")
def analysis(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    return Analysis(small_sweep(tmp_path_factory.mktemp("sweep") / "s"))


def test_settings_are_means_over_seeds(analysis: Analysis) -> None:
    assert len(analysis.settings) == 4 * len(RATES)
    found = analysis.settings[0]
    assert found.varied == {"privacy": "epsilon_1", "strategy.server.lr": "0.2"}
    # The twin of trial 0 is no seed of its own.
    assert found.trials == (0, 1, 2)
    assert analysis.settings[1].trials == (3, 4, 5)
    seeds = [accuracy("epsilon_1", 0.7, s) for s in range(3)]
    assert analysis.settings[1].values["accuracy"] == pytest.approx(statistics.fmean(seeds))
    assert analysis.settings[1].stds["accuracy"] == pytest.approx(statistics.stdev(seeds))


def test_the_best_is_that_of_the_best_mean_and_composes(analysis: Analysis, tmp_path: Path) -> None:
    assert analysis.best is not None
    assert analysis.best.varied == {"privacy": "none", "strategy.server.lr": "0.7"}
    place = tmp_path / "best.txt"
    place.write_text(best_text(analysis))
    given = expand([f"@{place}", "run.rounds=3"])
    assert given == [*overrides("none", 0.7, 0), "run.rounds=3"]
    assert config_hash(compose_config(given)) == config_hash(
        compose_config([*overrides("none", 0.7, 0), "run.rounds=3"])
    )
    with pytest.raises(UserError, match="@nowhere: cannot be read"):
        expand(["@nowhere"])


def test_the_front_against_every_pair(analysis: Analysis) -> None:
    assert analysis.objectives == ["accuracy", "worst_partner", "epsilon"]

    def beats(a: Setting, b: Setting) -> bool:
        signs = (1, 1, -1)
        pairs = [
            (s * a.values[n], s * b.values[n])
            for s, n in zip(signs, analysis.objectives, strict=True)
        ]
        return all(x >= y for x, y in pairs) and any(x > y for x, y in pairs)

    free = [s for s in analysis.settings if not any(beats(o, s) for o in analysis.settings)]
    assert analysis.front == free
    assert [s.varied["strategy.server.lr"] for s in analysis.front] == ["0.7"] * 4


def test_pareto_keeps_equals() -> None:
    assert pareto(["accuracy", "gap"], {3: [0.8, 0.1], 5: [0.8, 0.1], 7: [0.8, 0.2]}) == [3, 5]


def test_what_matters_more_is_told_so(analysis: Analysis) -> None:
    found = analysis.importance
    assert list(found) == ["privacy", "strategy.server.lr"]
    assert sum(found.values()) == pytest.approx(1.0)
    assert found["privacy"] > 0.8


def test_too_few_settings_say_nothing(tmp_path: Path) -> None:
    few = Analysis(small_sweep(tmp_path / "s", rates=(0.7,)))
    assert few.importance == {}
    assert few.keys == ["privacy"]


def test_the_curve_over_epsilon(tmp_path: Path) -> None:
    sweep = small_sweep(tmp_path / "s", rates=(0.7,), trouble=False)
    places = curve(Analysis(sweep))
    assert [p.name for p in places] == ["epsilon_1", "epsilon_3", "epsilon_8", "none"]
    text = markdown(places)
    assert "| epsilon_3 | 2.90 | 70.0 ± 0.2 | 60.0 ± 0.2 |" in text
    assert "| none | none: no guarantee | 80.0 ± 0.2 |" in text
    pytest.importorskip("matplotlib", reason="the figure needs matplotlib")
    table, figure = write_curve(sweep)
    assert table.read_text() == text
    first = figure.read_text()
    assert "without privacy" in first
    write_curve(sweep)
    assert figure.read_text() == first


def test_no_curve_where_other_things_were_varied(analysis: Analysis) -> None:
    with pytest.raises(UserError, match=r"strategy\.server\.lr: was varied too"):
        curve(analysis)
