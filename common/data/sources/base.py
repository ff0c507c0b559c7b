"""The protocol of a data source: everything the program asks of one is a method here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from common.data.batch import Batch
from common.data.schema import DataConfig
from common.errors import UserError


class Source(ABC):
    """A kind of place that labelled texts come from.

    A source has no state: every method gets the configuration.  ``test`` is what
    ``own_test_set`` returned, or None for the rows that are trained on.  Modules of sources import
    heavy libraries only where rows are read, because every command imports the registry.

    Attributes:
        name: The value of ``data.source``.
        tagged: Whether a row can be a list of words with their tags.
        folded_keys: Whether copies that differ in case or white space must be on the same side
            of every split.
    """

    name: ClassVar[str]
    tagged: ClassVar[bool] = False
    folded_keys: ClassVar[bool] = True

    @abstractmethod
    def read(self, config: DataConfig, test: str | None, downloads: Path | None) -> Iterator[Batch]:
        """The mapped columns of all rows, in batches.

        Args:
            config: A configuration that ``settle`` returned.
            test: The test set to read instead of the rows that are trained on.
            downloads: Folder that keeps what is fetched; None keeps nothing.

        Raises:
            UserError: Names file, row and column of the first fault.
        """

    @abstractmethod
    def stamp(self, config: DataConfig, test: str | None) -> str | None:
        """A text that changes when the rows change.

        None where nothing can be compared: then the source is read every time.
        """

    def own_test_set(self, config: DataConfig) -> str | None:
        """The configured test set, as ``read`` takes it; None where there is none."""
        return config.test_path

    def check(self, config: DataConfig) -> None:
        """Raise UserError for settings that this source cannot use."""
        if config.scheme is not None and not self.tagged:
            raise UserError(
                f"data.source={self.name} has no tagged words: use conll, json, parquet"
            )
        if config.unit == "document":
            raise UserError(
                "data.unit=document needs data.source=conll: a row of a table is one record"
            )

    def settle(self, config: DataConfig) -> DataConfig:
        """The configuration with everything filled in that the source itself fixes."""
        return config

    def is_named(self, config: DataConfig) -> bool:
        """Whether the configuration says where the rows that are trained on are."""
        return bool(config.path)

    def local_paths(self, config: DataConfig) -> tuple[str, ...]:
        """Names of the settings that are paths on this machine."""
        return ()

    def left_out(self, config: DataConfig, files: Sequence[str]) -> list[str]:
        """What is near the rows that are trained on and is not read: one line each.

        Args:
            config: Where the rows are.
            files: The files that rows came from.
        """
        return []

    def tag_scheme(self, config: DataConfig) -> str | None:
        """The scheme of the tags that ``read`` yields."""
        return config.scheme
