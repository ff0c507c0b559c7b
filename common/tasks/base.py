"""The description of a task: its names, heads, targets, bounds and figures.

One file of this package describes one task.  Partners, privacy, aggregation and checkpoints are the
same for all tasks.  The configuration imports these descriptions, so they must not import torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from common.data.schema import DataConfig
from common.figures import Figure
from common.metrics import Counts

# The loss of one example is clipped here, so that no example can move a mean without bound.
LOSS_BOUND = 4.0


class ModelSettings(Protocol):
    """The settings of `model` that a task may restrict."""

    @property
    def max_length(self) -> int:
        """Sub-tokens that the model reads at a time."""

    @property
    def stride(self) -> int:
        """Sub-tokens that windows overlap by."""

    @property
    def prefix_cache(self) -> bool:
        """Whether the output of frozen layers is cached."""


class PrivacySettings(Protocol):
    """The settings of `privacy` that a task may restrict."""

    @property
    def grad_sample_mode(self) -> str:
        """How per-example gradients are computed."""


class Settings(Protocol):
    """The part of `common.config.Config` that a task may restrict."""

    @property
    def model(self) -> ModelSettings:
        """Settings of the model."""

    @property
    def data(self) -> DataConfig:
        """Settings of the data."""

    @property
    def privacy(self) -> PrivacySettings:
        """Settings of privacy."""

    @property
    def private_metrics(self) -> bool:
        """Whether metrics carry noise."""


@dataclass(frozen=True)
class Measured:
    """Counts and loss from which figures are computed.

    Attributes:
        confusion: Counts [true, predicted].
        statistics: The task's sufficient statistics, of `Task.statistics_shape`; None where the
            task has none or they were not released.
        loss: The mean over examples of the loss, each clipped to the task's bound.
    """

    confusion: Counts
    statistics: Counts | None
    loss: float


class Task:
    """One task; the defaults are those of a task whose examples have one class each.

    Attributes:
        name: The value of `task=`.
        target: What the label column holds.
        heads: The values of `model.head` that fit.
        pipeline: The transformers pipeline that loads the delivered model.
        problem_type: The `problem_type` of the delivered model's configuration.
        loss_bound: The largest loss that one example can contribute.
        headline: The figure that people look at first; None where that is the accuracy.
        own_figures: The figures of this task beside accuracy and loss.
        accuracy_means: What the accuracy of this task is; None where it is the share of texts that
            are labelled correctly.
        classes: Whether rows and columns of a confusion matrix are classes, so that rates and their
            differences between groups have a meaning.
        noun: The kind of model, as in "text classifier".
    """

    name: ClassVar[str]
    target: ClassVar[str] = "label"
    heads: ClassVar[tuple[str, ...]] = ("mean", "cls")
    pipeline: ClassVar[str] = "text-classification"
    problem_type: ClassVar[str | None] = None
    loss_bound: ClassVar[float] = LOSS_BOUND
    headline: ClassVar[Figure | None] = None
    own_figures: ClassVar[tuple[Figure, ...]] = ()
    accuracy_means: ClassVar[str | None] = None
    classes: ClassVar[bool] = True
    noun: ClassVar[str]

    def outputs(self, data: DataConfig) -> tuple[str, ...]:
        """Names of the model's logits, in order."""
        return tuple(data.labels)

    def confusion_size(self, outputs: int) -> int:
        """Rows, and columns, of the confusion matrix of a model with `outputs` logits."""
        return outputs

    def statistics_shape(self, data: DataConfig) -> tuple[int, int]:
        """Shape of the sufficient statistics; (0, 0) where the task has none."""
        return 0, 0

    def check(self, config: Settings) -> None:
        """Check the settings that this task restricts.

        Raises:
            UserError: A setting does not go with this task; the message names its key.
        """

    def made_up(self, rows: int, outputs: int) -> npt.NDArray[Any]:
        """Targets of `rows` generated examples, for measuring speed."""
        return np.arange(rows, dtype=np.int64) % outputs

    def figures(self, measured: Measured, data: DataConfig) -> dict[str, float | None]:
        """Figures beside accuracy and loss, of one partner or of all; None: not measured."""
        return {}

    def round_figures(self, measured: Measured, data: DataConfig) -> dict[str, float | None]:
        """Those of them that are kept for every round: fields of `RoundRecord`."""
        if self.headline is None:
            return {}
        return {self.headline.name: self.figures(measured, data)[self.headline.name]}

    def details(
        self, measured: Measured, extra: Mapping[str, float], data: DataConfig
    ) -> dict[str, Any]:
        """Further entries of results.json about the delivered model.

        Args:
            measured: Counts and loss of the delivered model.
            extra: What `MetricAccumulator.extra` returned; empty without a test set.
            data: The data settings of the run.
        """
        return {}

    def delivered_scale(self, data: DataConfig) -> tuple[float, float] | None:
        """(a, b) such that the delivered model answers a·logit + b; None leaves logits as is."""
        return None

    def does(self, data: DataConfig) -> str:
        """What the model does, to follow "a model that"."""
        raise NotImplementedError

    def purpose(self, names: str) -> str:
        """What the model is for, to follow "For" and precede "texts"; `names` lists the labels."""
        raise NotImplementedError

    def names(self, data: DataConfig) -> tuple[str, Sequence[str]]:
        """A heading, and the names of the possible answers."""
        return "Labels", data.labels

    def use(self, remote: str) -> str:
        """The line of Python that loads the model; `remote` is a further argument, if any."""
        return f'classify = pipeline("{self.pipeline}", model="PATH"{remote})'


def finite(value: float) -> float | None:
    """The number, or None where it is NaN or infinite."""
    return float(value) if math.isfinite(value) else None
