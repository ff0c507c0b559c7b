"""Parquet files, mapped columns only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

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
                have = list(file.schema_arrow.names)
                named = {k: v for k, v in _folder_columns(path).items() if k not in have}
                require_columns(str(path), wanted, [*have, *named])
                names = class_names(file.schema_arrow, config.columns.label)
                row = 1
                inner = [name for name in wanted if name not in named]
                for chunk in file.iter_batches(batch_size=BATCH_ROWS, columns=inner):
                    for name in (name for name in wanted if name in named):
                        value = pa.scalar(named[name], pa.string())
                        chunk = chunk.append_column(name, pa.repeat(value, chunk.num_rows))
                    yield arrow_batch(str(path), row, chunk, config, names)
                    row += chunk.num_rows
        except pa.ArrowException:
            raise UserError(f"{path} is not a whole Parquet file") from None


def _folder_columns(path: Path) -> dict[str, str]:
    """The columns that folders name, as in ``site=north/part-0.parquet``."""
    pairs = (part.partition("=") for part in path.parent.parts)
    return {name: unquote(value) for name, equals, value in pairs if equals and name}
