"""Every figure has one set of words, one format and one direction, everywhere."""

from __future__ import annotations

import subprocess
import sys

import pytest

from common import figures
from common.config import Config
from common.figures import Figure
from common.scoring import scoring_of
from common.tasks import TASKS, Task
from reporting.figures import task_figures
from sweeps.objectives import OBJECTIVES

KNOWN = {figure.name: figure for figure in vars(figures).values() if isinstance(figure, Figure)}


def test_a_share_is_in_percent_and_the_rest_are_numbers() -> None:
    assert figures.ENTITY_F1.show(0.77314) == "77.3 %"
    assert figures.PERPLEXITY.show(12.34567) == "12.35"
    assert figures.PEARSON.show(None) == "-"


def test_the_worst_value_depends_on_the_direction() -> None:
    assert figures.MICRO_F1.worst([0.4, 0.9]) == 0.4
    assert figures.MAE.worst([0.4, 0.9]) == 0.9
    assert figures.MAE.worst([]) is None


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_task_is_described_and_scored(task: Task) -> None:
    assert scoring_of(task)
    for figure in task.own_figures:
        assert KNOWN[figure.name] is figure
    assert task.headline is None or task.headline in task.own_figures


def test_card_and_sweep_say_the_same_words() -> None:
    shown = task_figures(Config(task="multilabel"), {"micro_f1": 0.5, "macro_f1": 0.25})
    assert shown == [("micro F1", "50.0 %"), ("macro F1", "25.0 %")]
    assert OBJECTIVES["macro_f1"].title == "macro F1"
    assert OBJECTIVES["loss"].direction == "minimize"
    assert not OBJECTIVES["loss"].share


def test_the_configuration_imports_no_torch() -> None:
    heavy = "{'torch', 'transformers', 'peft', 'scipy'}"
    code = f"import sys, common.config; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
