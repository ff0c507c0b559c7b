"""What each task is, by the name that `task=` gives it; nothing here imports torch.

`common.scoring` has what each task computes: the loss of an example and the counts of predictions.
"""

from common.tasks.base import LOSS_BOUND, Measured, Task
from common.tasks.classification import Classification
from common.tasks.mlm import MaskedLanguage
from common.tasks.multilabel import Multilabel
from common.tasks.ner import NamedEntities
from common.tasks.regression import Regression

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Classification(),
        NamedEntities(),
        Multilabel(),
        Regression(),
        MaskedLanguage(),
    )
}
__all__ = ["LOSS_BOUND", "TASKS", "Measured", "Task"]
