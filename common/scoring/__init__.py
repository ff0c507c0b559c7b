"""What each task computes: the loss of an example, and the counts of predictions.

`common.tasks` describes the tasks; one file of this package holds the arithmetic of one of them.
"""

from common.scoring import classification, mlm, multilabel, ner, regression
from common.scoring.base import MetricAccumulator, Scoring
from common.tasks import Task

_SCORING: dict[str, Scoring] = {
    "classification": classification.SCORING,
    "ner": ner.SCORING,
    "multilabel": multilabel.SCORING,
    "regression": regression.SCORING,
    "mlm": mlm.SCORING,
}


def scoring_of(task: Task) -> Scoring:
    """The losses and the metric accumulator of a task."""
    return _SCORING[task.name]


__all__ = ["MetricAccumulator", "Scoring", "scoring_of"]
