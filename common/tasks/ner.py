"""Named entities: a tag for each word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from common import entities
from common.data.schema import DataConfig
from common.errors import UserError
from common.figures import ENTITY_F1
from common.tags import tag_names
from common.tasks.base import Measured, Settings, Task, finite


class NamedEntities(Task):
    """Cross-entropy of words, averaged within each record.

    Confusion matrices count words; the sufficient statistics count true and false entities of each
    type.
    """

    name = "ner"
    target = "tags"
    heads = ("token",)
    pipeline = "token-classification"
    headline = ENTITY_F1
    own_figures = (ENTITY_F1,)
    accuracy_means = "the share of words that have the right tag"
    noun = "tagger of named entities"

    def outputs(self, data: DataConfig) -> tuple[str, ...]:
        """The tags of the types."""
        return tag_names(data.labels)

    def statistics_shape(self, data: DataConfig) -> tuple[int, int]:
        """True positives, false positives and false negatives of each type."""
        return len(data.labels), 3

    def check(self, config: Settings) -> None:
        """Windows, clipping and metrics."""
        room = config.model.max_length - 2
        if not 0 <= config.model.stride < room:
            raise UserError(f"model.stride: must be in [0, {room}), got {config.model.stride}")
        if config.privacy.grad_sample_mode != "hooks":
            raise UserError(
                f"privacy.grad_sample_mode: {config.privacy.grad_sample_mode} clips windows, not "
                "sentences; use hooks (task=ner)"
            )
        if config.private_metrics:
            raise UserError(
                "privacy.metrics: private does not support task=ner, because one sentence can "
                "change any number of word and entity counts; use exact"
            )

    def figures(self, measured: Measured, data: DataConfig) -> dict[str, float | None]:
        """Entity F1."""
        counts = measured.statistics
        return {"entity_f1": None if counts is None else finite(entities.f1(counts))}

    def details(
        self, measured: Measured, extra: Mapping[str, float], data: DataConfig
    ) -> dict[str, Any]:
        """Figures of each type."""
        if measured.statistics is None:
            return {}
        return {"entities": entities.scores(measured.statistics, data.labels)}

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
