"""A number for a text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from common.data.schema import DataConfig
from common.errors import UserError
from common.figures import MAE, PEARSON, R2, RMSE, SPEARMAN
from common.metrics import accuracy
from common.tasks.base import Measured, Settings, Task, finite


class Regression(Task):
    """Squared error of a number that public bounds map to [-1, 1].

    For figures, target and prediction are positions p and q within the bounds, in [0, 1], with
    predictions outside moved to the nearer end.  The confusion matrix of an example has its
    absolute error e in its second row as e wrong and 1 - e right, so that the accuracy is 1 minus
    the mean absolute error and an example adds 1 in total, as a classifier's does.  The sufficient
    statistics are n and the sums of p, q, p², q² and pq.
    """

    name = "regression"
    target = "number"
    problem_type = "regression"
    headline = MAE
    own_figures = (MAE, RMSE, PEARSON, SPEARMAN, R2)
    accuracy_means = "1 less the mean absolute error as a share of the range of data.bounds"
    classes = False
    noun = "model that predicts a number"

    def outputs(self, data: DataConfig) -> tuple[str, ...]:
        """The number, named like its column."""
        return (data.columns.label,)

    def confusion_size(self, outputs: int) -> int:
        """Wrong and right, in the second row."""
        return 2

    def statistics_shape(self, data: DataConfig) -> tuple[int, int]:
        """One row of six sums."""
        return 1, 6

    def check(self, config: Settings) -> None:
        """Labels."""
        if config.data.labels:
            raise UserError("data.labels: task=regression has no labels; leave it empty")

    def made_up(self, rows: int, outputs: int) -> npt.NDArray[Any]:
        """Spread over the range, [rows, 1]."""
        return np.linspace(-1, 1, rows, dtype=np.float32)[:, None]

    def figures(self, measured: Measured, data: DataConfig) -> dict[str, float | None]:
        """Errors in the units of the column; Pearson's r and R² have none.

        Without sufficient statistics (noisy figures) only the mean absolute error is known.
        """
        span = data.bounds[1] - data.bounds[0]
        rmse = pearson = r2 = math.nan
        if measured.statistics is not None and measured.statistics[0, 0] > 0:
            n, p, q, pp, qq, pq = measured.statistics[0]
            square = max(pp + qq - 2 * pq, 0.0) / n
            rmse = math.sqrt(square) * span
            spread, other = max(n * pp - p * p, 0.0), max(n * qq - q * q, 0.0)
            # A smaller variance is nothing but the rounding of the sums.
            tiny = 1e-12 * n * n
            if spread > tiny:
                r2 = 1 - square * n * n / spread
                if other > tiny:
                    pearson = min(max((n * pq - p * q) / math.sqrt(spread * other), -1.0), 1.0)
        return {
            "mae": finite((1 - accuracy(measured.confusion)) * span),
            "rmse": finite(rmse),
            "pearson": finite(pearson),
            "r2": finite(r2),
        }

    def details(
        self, measured: Measured, extra: Mapping[str, float], data: DataConfig
    ) -> dict[str, Any]:
        """Spearman's rank correlation, which only the server's own test set gives."""
        return {"spearman": finite(extra.get("spearman", math.nan)), "macro_f1": None}

    def delivered_scale(self, data: DataConfig) -> tuple[float, float] | None:
        """From [-1, 1] to the units of the column."""
        low, high = data.bounds
        return (high - low) / 2, (high + low) / 2

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
