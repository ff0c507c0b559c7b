"""A number for a text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from common.data.schema import DataConfig
from common.errors import UserError
from common.metrics import Counts, accuracy
from common.tasks.base import Measured, RowTally, Tally, Task, finite

if TYPE_CHECKING:
    from common.config import Config
    from common.features import Batch, Examples


class Regression(Task):
    """Squared error of a number that public bounds bring to [-1, 1].

    For figures both numbers are places in the bounds, in [0, 1], predictions outside taken to the
    nearer end.  A row's table holds its absolute error e as a share e wrong and 1 - e right, so
    that the accuracy is 1 less the mean absolute error and a row adds 1 to a table's sum, as a
    classifier's does.  Sums, of places p and predicted q: rows, p, q, p p, q q, p q.
    """

    name = "regression"
    target = "number"
    problem_type = "regression"
    headline = ("mae", False)
    figure_names = ("mae", "rmse", "pearson", "spearman", "r2")
    accuracy_means = "1 less the mean absolute error as a share of the range of data.bounds"
    classes = False
    noun = "model that predicts a number"

    def outputs(self, data: DataConfig) -> tuple[str, ...]:
        """The number, called as its column."""
        return (data.columns.label,)

    def table_size(self, outputs: int) -> int:
        """The second row alone holds anything: wrong, right."""
        return 2

    def sums_shape(self, data: DataConfig) -> tuple[int, int]:
        """One line of six."""
        return 1, 6

    def check(self, config: Config) -> None:
        """Bounds."""
        if config.data.labels:
            raise UserError("data.labels: a number has none; leave it empty (task=regression)")

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """Squared error of each text, at most 4 while the prediction is within the bounds."""
        return (logits.float() - batch.labels).square().sum(1)

    def made_up(self, rows: int, outputs: int) -> npt.NDArray[Any]:
        """Spread over the range."""
        return np.linspace(-1, 1, rows, dtype=np.float32)[:, None]

    def tally(self, outputs: Sequence[str], rows: int) -> Tally:
        """Errors and sums."""
        return _Tally(rows)

    def figures(self, measured: Measured, data: DataConfig) -> dict[str, float | None]:
        """Errors in the units of the column; Pearson's r and R² have none.

        Without sums (noisy figures) only the mean absolute error is known.
        """
        span = data.bounds[1] - data.bounds[0]
        rmse = pearson = r2 = math.nan
        if measured.sums is not None and measured.sums[0, 0] > 0:
            n, p, q, pp, qq, pq = measured.sums[0]
            square = max(pp + qq - 2 * pq, 0.0) / n
            rmse = math.sqrt(square) * span
            spread, other = max(n * pp - p * p, 0.0), max(n * qq - q * q, 0.0)
            # Below this, what the sums leave of a variance is rounding.
            tiny = 1e-12 * n * n
            if spread > tiny:
                r2 = 1 - square * n * n / spread
                if other > tiny:
                    pearson = min(max((n * pq - p * q) / math.sqrt(spread * other), -1.0), 1.0)
        return {
            "mae": finite((1 - accuracy(measured.table)) * span),
            "rmse": finite(rmse),
            "pearson": finite(pearson),
            "r2": finite(r2),
        }

    def details(
        self, measured: Measured, extra: Mapping[str, float], data: DataConfig
    ) -> dict[str, Any]:
        """Spearman's rank correlation, which only the server's own rows give."""
        return {"spearman": finite(extra.get("spearman", math.nan)), "macro_f1": None}

    def deliver(self, last: nn.Linear, data: DataConfig) -> None:
        """So that the delivered model answers in the units of the column."""
        low, high = data.bounds
        with torch.no_grad():
            last.weight.mul_((high - low) / 2)
            last.bias.mul_((high - low) / 2).add_((high + low) / 2)

    def does(self, data: DataConfig) -> str:
        """As a clause."""
        return f"predicts a number from {data.bounds[0]:g} to {data.bounds[1]:g}"

    def purpose(self, names: str) -> str:
        """As a clause."""
        return f"predicting {names} of"

    def names(self, data: DataConfig) -> tuple[str, Sequence[str]]:
        """The number's name."""
        return "Number", [data.columns.label]

    def use(self, remote: str) -> str:
        """As a line of Python."""
        return (
            f'number = pipeline("{self.pipeline}", model="PATH", function_to_apply="none"{remote})'
        )


class _Tally(RowTally):
    def __init__(self, rows: int) -> None:
        super().__init__(rows)
        self.places = np.zeros((rows, 2))

    def add(self, examples: Examples, batch: Batch, logits: Tensor) -> None:
        both = torch.stack([batch.labels[:, 0], logits[:, 0].nan_to_num(0.0)], 1).double()
        self.places[batch.indices] = both.clamp(-1.0, 1.0).add(1.0).div(2.0).numpy()
        error = np.abs(self.places[batch.indices, 0] - self.places[batch.indices, 1])
        self.tables[batch.indices, 1] = np.stack([error, 1 - error], 1)

    def sums(self) -> Counts | None:
        p, q = self.places.T
        return np.array([[len(p), p.sum(), q.sum(), p @ p, q @ q, p @ q]], dtype=np.float64)

    def extra(self) -> dict[str, float]:
        from scipy.stats import spearmanr

        p, q = self.places.T
        if len(p) < 2 or not np.ptp(p) > 0 or not np.ptp(q) > 0:
            return {}
        return {"spearman": float(spearmanr(p, q).statistic)}
