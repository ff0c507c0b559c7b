"""What is kept of each round, and how it is written."""

from __future__ import annotations

import csv
import io
import json

from common.tasks import TASKS
from results.history import TASK_FIGURES, History, RoundRecord, rounds_csv
from strategies.records import Decision, missing, refused

COLUMNS = [
    *("round", "accuracy", "loss", "entity_f1", "micro_f1", "mae", "perplexity"),
    *("mean_partner_accuracy", "mean_partner_accuracy_error"),
    *("worst_partner_accuracy", "worst_partner_accuracy_error", "partner_accuracy_std"),
    *("validation_loss", "validation_loss_error"),
    *("epsilon_max", "replies", "refused", "missing", "seconds"),
]


def test_the_columns_of_rounds_csv_are_those_that_people_read() -> None:
    assert rounds_csv(History()).splitlines() == [",".join(COLUMNS)]
    assert set(TASK_FIGURES) == {t.headline.name for t in TASKS.values() if t.headline}


def test_a_record_survives_its_row_and_json() -> None:
    history = History([RoundRecord(1, 0.5, 0.6, {"mae": 1.5, "novel": None}), RoundRecord(2)])
    rows = json.loads(json.dumps(history.to_json()))
    assert History.from_json(rows) == history
    assert rows["rounds"][0]["mae"] == 1.5
    assert [list(row) for row in rows["rounds"]] == [
        [*COLUMNS[:7], "novel", *COLUMNS[7:]],
        COLUMNS,
    ]


def test_a_figure_that_only_some_rounds_have_gets_a_column() -> None:
    history = History([RoundRecord(1), RoundRecord(2, figures={"novel": 0.25})])
    rows = list(csv.DictReader(io.StringIO(rounds_csv(history))))
    assert [row["novel"] for row in rows] == ["", "0.25"]
    assert [row["round"] for row in rows] == ["1", "2"]


def test_decisions_are_counted_by_partner() -> None:
    history = History([RoundRecord(1)])
    history.count([refused("a", 1, "x"), missing("b", 1, "y"), Decision("c", 1, "dropped", "z")])
    assert history.refused_rounds == {"a": 1, "b": 1}
    assert history.merged_nothing
    history.count([refused("a", 2, "x"), Decision("c", 2, "merged", "z", weight_given=0.5)])
    assert history.refused_rounds == {"a": 2, "b": 1}
    assert history.weight_sums == {"c": 0.5}
    assert not history.merged_nothing
