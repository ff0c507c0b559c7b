"""Parquet files, mapped columns only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from common.data.batch import BATCH_ROWS, Batch, require_columns
from common.data.schema import DataConfig
from common.data.sources.arrow import arrow_batch, class_names
from common.data.sources.files import FileSource
from common.errors import UserError


class Parquet(FileSource):
    """Parquet files."""

    name = "parquet"
    suffixes = (".parquet",)
    tagged = True
    text = False

    def read_file(self, path: Path, config: DataConfig) -> Iterator[Batch]:
        """The mapped columns of one file, in batches."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        wanted = config.columns.all()
        try:
            with pq.ParquetFile(path) as file:
                require_columns(str(path), wanted, list(file.schema_arrow.names))
                names = class_names(file.schema_arrow, config.columns.label)
                row = 1
                for chunk in file.iter_batches(batch_size=BATCH_ROWS, columns=wanted):
                    yield arrow_batch(str(path), row, chunk, config, names)
                    row += chunk.num_rows
        except pa.ArrowException:
            raise UserError(f"{path} is not a whole Parquet file") from None
