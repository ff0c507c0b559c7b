"""Named entities: a tag for each word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
from torch import Tensor

from common import entities
from common.data.schema import DataConfig
from common.errors import UserError
from common.losses import record_losses
from common.metrics import Counts
from common.tags import spans, tag_names
from common.tasks.base import Measured, Tally, Task, confusion, finite

if TYPE_CHECKING:
    from common.config import Config
    from common.features import Batch, Examples
    from common.words import WordExamples


class NamedEntities(Task):
    """Cross-entropy of words; tables count words, sums true and false entities of each type."""

    name = "ner"
    target = "tags"
    heads = ("token",)
    pipeline = "token-classification"
    headline = ("entity_f1", True)
    figure_names = ("entity_f1",)
    accuracy_means = "the share of words that have the right tag"
    noun = "tagger of named entities"

    def outputs(self, data: DataConfig) -> tuple[str, ...]:
        """The tags of the types."""
        return tag_names(data.labels)

    def sums_shape(self, data: DataConfig) -> tuple[int, int]:
        """True positives, false positives and false negatives of each type."""
        return len(data.labels), 3

    def check(self, config: Config) -> None:
        """Windows, clipping, metrics and attacks."""
        room = config.model.max_length - 2
        if not 0 <= config.model.stride < room:
            raise UserError(f"model.stride: must be in [0, {room}), got {config.model.stride}")
        if config.privacy.grad_sample_mode != "hooks":
            raise UserError(
                f"privacy.grad_sample_mode: {config.privacy.grad_sample_mode} clips windows, not "
                "sentences; use "
                "hooks (task=ner)"
            )
        if config.private_metrics:
            raise UserError(
                "privacy.metrics: private is for classification: a sentence may hold any number of "
                "words and entities, so no noise bounds what counts of them tell; use exact "
                "(task=ner)"
            )

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """The mean over a record's words."""
        return record_losses(logits, batch.labels, batch.owner, len(batch))

    def tally(self, outputs: Sequence[str], rows: int) -> Tally:
        """Counts of words and of entities."""
        return _Tally(outputs, rows)

    def figures(self, measured: Measured, data: DataConfig) -> dict[str, float | None]:
        """Entity F1."""
        return {"entity_f1": None if measured.sums is None else finite(entities.f1(measured.sums))}

    def details(
        self, measured: Measured, extra: Mapping[str, float], data: DataConfig
    ) -> dict[str, Any]:
        """Figures of each type."""
        if measured.sums is None:
            return {}
        return {"entities": entities.scores(measured.sums, data.labels)}

    def does(self, data: DataConfig) -> str:
        """As a clause."""
        return f"finds entities of {len(data.labels)} types"

    def purpose(self, names: str) -> str:
        """As a clause."""
        return f"finding entities of the types {names} in"

    def names(self, data: DataConfig) -> tuple[str, Sequence[str]]:
        """The types."""
        return "Types", data.labels

    def use(self, remote: str) -> str:
        """As a line of Python."""
        return f'find = pipeline("{self.pipeline}", model="PATH", aggregation_strategy="first")'


class _Tally:
    def __init__(self, outputs: Sequence[str], rows: int) -> None:
        self.names = outputs
        self.types = tuple(name[2:] for name in outputs[1::2])
        self.tables = np.zeros((rows, len(outputs), len(outputs)), dtype=np.int32)
        self.entities = np.zeros((len(self.types), 3))

    def add(self, examples: Examples, batch: Batch, logits: Tensor) -> None:
        words = cast("WordExamples", examples)
        for index, predicted in zip(batch.indices, words.predicted(batch, logits), strict=True):
            truth = words.codes[words.offsets[index] : words.offsets[index + 1]]
            self.tables[index] = confusion(truth, predicted, len(self.names))
            self.entities += entity_counts(
                [self.names[code] for code in truth],
                [self.names[code] for code in predicted],
                self.types,
            )

    def table(self, rows: npt.NDArray[np.bool_]) -> Counts:
        found: Counts = self.tables[rows].sum(0).astype(np.float64)
        return found

    def sums(self) -> Counts | None:
        return self.entities

    def extra(self) -> dict[str, float]:
        return {}


def entity_counts(truth: Sequence[str], predicted: Sequence[str], types: Sequence[str]) -> Counts:
    """True positives, false positives, false negatives [types, 3] of one row's BIO tags.

    An entity is found where its type and both its ends are right (CoNLL-2003).
    """
    wanted, given = set(spans(truth)), set(spans(predicted))
    counts = np.zeros((len(types), 3))
    for column, found in enumerate((wanted & given, given - wanted, wanted - given)):
        for kind, _, _ in found:
            counts[types.index(kind), column] += 1
    return counts
