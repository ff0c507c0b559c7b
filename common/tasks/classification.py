"""One label for a text."""

from __future__ import annotations

from common.data.schema import DataConfig
from common.tasks.base import Task


class Classification(Task):
    """Cross-entropy; confusion matrices are [labels, labels]."""

    name = "classification"
    noun = "text classifier"

    def does(self, data: DataConfig) -> str:
        """As a clause."""
        return f"assigns a text to one of {len(data.labels)} labels"

    def purpose(self, names: str) -> str:
        """As a clause."""
        return f"assigning one of {names} to"
