"""Queries of an SQL database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from common.data.batch import Batch
from common.data.schema import DataConfig
from common.data.sources.base import Source


class Sql(Source):
    """The rows of ``data.sql_query``."""

    name = "sql"

    def read(self, config: DataConfig, test: str | None, downloads: Path | None) -> Iterator[Batch]:
        """The mapped columns of the query, in batches; nothing is ever committed."""
        from common.data.database import read_query

        return read_query(config, test)

    def stamp(self, config: DataConfig, test: str | None) -> str | None:
        """None: a query has nothing that could be compared, so it runs every time."""
        return None

    def own_test_set(self, config: DataConfig) -> str | None:
        """The query of the test rows."""
        return config.sql_test_query

    def is_named(self, config: DataConfig) -> bool:
        """Whether there is a query of the rows that are trained on."""
        return bool(config.sql_query)
