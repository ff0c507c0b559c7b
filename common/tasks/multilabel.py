"""Any number of labels for a text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from common import entities
from common.data.schema import DataConfig
from common.figures import MACRO_F1, MICRO_F1
from common.metrics import proper
from common.tasks.base import Measured, Task, finite


class Multilabel(Task):
    """Binary cross-entropy, averaged over labels.

    The confusion matrix of an example counts its decisions, one per label (absent or present, true
    and predicted), each worth 1 / labels: an example adds 1 in total however many labels there are,
    so that the sensitivity is that of a classifier's matrix.  The sufficient statistics are true
    positives, false positives and false negatives of each label.
    """

    name = "multilabel"
    target = "labels"
    problem_type = "multi_label_classification"
    headline = MICRO_F1
    own_figures = (MICRO_F1, MACRO_F1)
    accuracy_means = "the share of right decisions, one for each text and label"
    noun = "classifier with any number of labels"

    def confusion_size(self, outputs: int) -> int:
        """Absent and present."""
        return 2

    def statistics_shape(self, data: DataConfig) -> tuple[int, int]:
        """Three counts for each label."""
        return len(data.labels), 3

    def made_up(self, rows: int, outputs: int) -> npt.NDArray[Any]:
        """One label each, [rows, outputs]."""
        return np.eye(outputs, dtype=np.float32)[np.arange(rows) % outputs]

    def figures(self, measured: Measured, data: DataConfig) -> dict[str, float | None]:
        """Micro F1 from the confusion matrix, and macro F1, which needs the counts of labels."""
        (_, fp), (fn, tp) = proper(measured.confusion)
        micro = 2 * tp / (2 * tp + fp + fn) if tp + fp + fn > 0 else np.nan
        macro = np.nan
        if measured.statistics is not None and measured.statistics.any():
            lines = entities.scores(measured.statistics, data.labels)
            macro = lines["macro avg"]["f1-score"]
        return {"micro_f1": finite(micro), "macro_f1": finite(macro)}

    def details(
        self, measured: Measured, extra: Mapping[str, float], data: DataConfig
    ) -> dict[str, Any]:
        """Precision, recall, F1 and support of each label and averaged."""
        if measured.statistics is None:
            return {}
        return {"labels": entities.scores(measured.statistics, data.labels)}

    def does(self, data: DataConfig) -> str:
        """As a clause."""
        return f"says which of {len(data.labels)} labels a text has"

    def purpose(self, names: str) -> str:
        """As a clause."""
        return f"saying which of {names} go with"

    def use(self, remote: str) -> str:
        """As a line of Python."""
        return f'score = pipeline("{self.pipeline}", model="PATH", top_k=None{remote})'
