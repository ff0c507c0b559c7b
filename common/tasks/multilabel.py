"""Any number of labels for a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from common import entities
from common.data.schema import DataConfig
from common.metrics import Counts, proper
from common.tasks.base import Measured, RowTally, Tally, Task, finite

if TYPE_CHECKING:
    from common.features import Batch, Examples


class Multilabel(Task):
    """Binary cross-entropy, the mean over labels.

    A row's table holds its decisions, one a label, true or predicted to be absent or present, each
    worth 1 / labels: a row adds 1 to a table's sum however many labels there are, so that a table
    has the sensitivity of a classifier's.  Sums are true positives, false positives and false
    negatives of each label.
    """

    name = "multilabel"
    target = "labels"
    problem_type = "multi_label_classification"
    headline = ("micro_f1", True)
    figure_names = ("micro_f1", "macro_f1")
    accuracy_means = "the share of right decisions, one for each text and label"
    noun = "classifier with any number of labels"

    def table_size(self, outputs: int) -> int:
        """Absent and present."""
        return 2

    def sums_shape(self, data: DataConfig) -> tuple[int, int]:
        """Three counts a label."""
        return len(data.labels), 3

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """Binary cross-entropy of each text, the mean over labels."""
        each = nn.functional.binary_cross_entropy_with_logits(
            logits.float(), batch.labels, reduction="none"
        )
        return each.mean(1)

    def made_up(self, rows: int, outputs: int) -> npt.NDArray[Any]:
        """One label each."""
        return np.eye(outputs, dtype=np.float32)[np.arange(rows) % outputs]

    def tally(self, outputs: Sequence[str], rows: int) -> Tally:
        """Counts of decisions."""
        return _Tally(len(outputs), rows)

    def figures(self, measured: Measured, data: DataConfig) -> dict[str, float | None]:
        """Micro F1, which the table gives, and macro F1, which needs the counts of labels."""
        (_, fp), (fn, tp) = proper(measured.table)
        micro = 2 * tp / (2 * tp + fp + fn) if tp + fp + fn > 0 else np.nan
        macro = np.nan
        if measured.sums is not None and measured.sums.any():
            lines = entities.scores(measured.sums, data.labels)
            macro = lines["macro avg"]["f1-score"]
        return {"micro_f1": finite(micro), "macro_f1": finite(macro)}

    def details(
        self, measured: Measured, extra: Mapping[str, float], data: DataConfig
    ) -> dict[str, Any]:
        """Precision, recall, F1 and support of each label and averaged."""
        if measured.sums is None:
            return {}
        return {"labels": entities.scores(measured.sums, data.labels)}

    def does(self, data: DataConfig) -> str:
        """As a clause."""
        return f"says which of {len(data.labels)} labels a text has"

    def purpose(self, names: str) -> str:
        """As a clause."""
        return f"saying which of {names} go with"

    def use(self, remote: str) -> str:
        """As a line of Python."""
        return f'score = pipeline("{self.pipeline}", model="PATH", top_k=None{remote})'


class _Tally(RowTally):
    def __init__(self, labels: int, rows: int) -> None:
        super().__init__(rows)
        self.counts = np.zeros((labels, 3))

    def add(self, examples: Examples, batch: Batch, logits: Tensor) -> None:
        given = logits.numpy() > 0
        truth = batch.labels.numpy() > 0.5
        for true in (0, 1):
            for said in (0, 1):
                hits = (truth == bool(true)) & (given == bool(said))
                self.tables[batch.indices, true, said] = hits.mean(1)
        for column, hits in enumerate((truth & given, ~truth & given, truth & ~given)):
            self.counts[:, column] += hits.sum(0)

    def sums(self) -> Counts | None:
        return self.counts
