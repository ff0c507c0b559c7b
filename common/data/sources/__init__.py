"""The registry of data sources: one class each, looked up by ``data.source``."""

from __future__ import annotations

from common.data.schema import DataConfig
from common.data.sources.base import Source
from common.data.sources.conll import Conll
from common.data.sources.delimited import Csv
from common.data.sources.demo import Demo
from common.data.sources.hub import Hub
from common.data.sources.json_lines import Json
from common.data.sources.parquet import Parquet
from common.data.sources.sql import Sql
from common.errors import UserError

SOURCES: dict[str, Source] = {
    source.name: source for source in (Demo(), Csv(), Parquet(), Json(), Sql(), Hub(), Conll())
}


def source_of(config: DataConfig) -> Source:
    """The source that ``config.source`` names.

    Raises:
        UserError: If there is no such source.
    """
    source = SOURCES.get(config.source)
    if source is None:
        raise UserError(f"data.source must be one of {', '.join(SOURCES)}")
    return source
