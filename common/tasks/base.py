"""What sets one task apart from the others; a task is one file of this package.

Everything else (the partners, privacy, aggregation, checkpoints) is the same for all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from common.data.schema import DataConfig
from common.metrics import Counts

if TYPE_CHECKING:
    from common.config import Config
    from common.features import Batch, Examples

# The loss of one row is clipped here, so that one row cannot move a mean without bound.
LOSS_BOUND = 4.0


class Tally(Protocol):
    """What is counted of rows as they go through the model."""

    def add(self, examples: Examples, batch: Batch, logits: Tensor) -> None:
        """Count a batch; `logits` is float32 on the CPU."""

    def table(self, rows: npt.NDArray[np.bool_]) -> Counts:
        """The confusion [true, predicted] of some of all rows."""

    def sums(self) -> Counts | None:
        """The task's own sums over all rows, which add up over partners; None without any."""

    def extra(self) -> dict[str, float]:
        """Figures that cannot come from sums: for the server's own rows only."""


@dataclass(frozen=True)
class Measured:
    """What figures are made from; `sums` is None where none were released."""

    table: Counts
    sums: Counts | None
    loss: float


class Task:
    """Defaults are those of a task whose rows have one target each and whose tables are classes.

    `target` is what the label column holds, `heads` the model heads that fit.  `headline` names the
    figure that people look at first, and whether more of it is better; None where that is the
    accuracy; `figure_names` all that the results hold in one number each.  `accuracy_means` says
    what the accuracy of this task is, where that is not the share of texts labelled correctly.
    `classes`: whether a table's rows and columns are classes, so that
    rates and the gaps in them mean something.
    """

    name: ClassVar[str]
    target: ClassVar[str] = "label"
    heads: ClassVar[tuple[str, ...]] = ("mean", "cls")
    pipeline: ClassVar[str] = "text-classification"
    problem_type: ClassVar[str | None] = None
    loss_bound: ClassVar[float] = LOSS_BOUND
    headline: ClassVar[tuple[str, bool] | None] = None
    figure_names: ClassVar[tuple[str, ...]] = ()
    accuracy_means: ClassVar[str | None] = None
    classes: ClassVar[bool] = True
    noun: ClassVar[str]

    def outputs(self, data: DataConfig) -> tuple[str, ...]:
        """What the model's logits stand for, in order."""
        return tuple(data.labels)

    def table_size(self, outputs: int) -> int:
        """Rows (and columns) of a confusion table of a model with so many outputs."""
        return outputs

    def sums_shape(self, data: DataConfig) -> tuple[int, int]:
        """Shape of the sums; (0, 0) without any."""
        return 0, 0

    def check(self, config: Config) -> None:
        """Raise UserError, naming the key, for settings that do not go with this task."""

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """The loss of each record [records], float32: what is clipped under privacy."""
        raise NotImplementedError

    def made_up(self, rows: int, outputs: int) -> npt.NDArray[Any]:
        """Targets of made-up rows, to measure speed on."""
        return np.arange(rows, dtype=np.int64) % outputs

    def tally(self, outputs: Sequence[str], rows: int) -> Tally:
        """An empty tally for `rows` rows."""
        raise NotImplementedError

    def figures(self, measured: Measured, data: DataConfig) -> dict[str, float | None]:
        """Figures beside accuracy and loss, of one partner or of all rows; None: not known."""
        return {}

    def round_figures(self, measured: Measured, data: DataConfig) -> dict[str, float | None]:
        """Those of them that are kept for every round: fields of `RoundRecord`."""
        found = self.figures(measured, data)
        return {} if self.headline is None else {self.headline[0]: found[self.headline[0]]}

    def details(
        self, measured: Measured, extra: Mapping[str, float], data: DataConfig
    ) -> dict[str, Any]:
        """What the results hold of the delivered model besides."""
        return {}

    def deliver(self, last: nn.Linear, data: DataConfig) -> None:
        """Change the last layer of a trained model, in place, into what is delivered."""

    def does(self, data: DataConfig) -> str:
        """What the model does, to follow "a model that"."""
        raise NotImplementedError

    def purpose(self, names: str) -> str:
        """What the model is for, to follow "For" and precede "texts"; `names` lists the labels."""
        raise NotImplementedError

    def names(self, data: DataConfig) -> tuple[str, Sequence[str]]:
        """What the model can answer with: a heading and the answers."""
        return "Labels", data.labels

    def use(self, remote: str) -> str:
        """The line of Python that loads the model; `remote` is an argument that it may need."""
        return f'classify = pipeline("{self.pipeline}", model="PATH"{remote})'


class RowTally:
    """Tables of two by two whose rows each hold a share of one, so that a row counts as one."""

    def __init__(self, rows: int) -> None:
        self.tables = np.zeros((rows, 2, 2))

    def table(self, rows: npt.NDArray[np.bool_]) -> Counts:
        """The sum over the chosen rows."""
        found: Counts = self.tables[rows].sum(0)
        return found

    def sums(self) -> Counts | None:
        """None of its own."""
        return None

    def extra(self) -> dict[str, float]:
        """None of its own."""
        return {}


def confusion(truth: npt.NDArray[Any], predicted: npt.NDArray[Any], classes: int) -> Counts:
    """Counts [true, predicted] of class numbers."""
    flat = np.bincount(truth * classes + predicted, minlength=classes * classes)
    return flat.reshape(classes, classes).astype(np.float64)


def finite(value: float) -> float | None:
    """None in the place of a number that there is not."""
    return float(value) if math.isfinite(value) else None
