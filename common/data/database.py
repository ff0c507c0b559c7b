"""Rows of an SQL query, through SQLAlchemy."""

from __future__ import annotations

import os
from collections.abc import Iterator

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from common.data.batch import BATCH_ROWS, Batch, require_columns
from common.data.schema import DataConfig
from common.errors import UserError


def read_query(config: DataConfig, query: str | None = None) -> Iterator[Batch]:
    """The mapped columns of ``query`` (else the config's), in batches; nothing is ever committed.

    The URL comes from the environment variable ``config.sql_url_env``, so that its password is
    in no config, and messages of the driver are not passed on, for they may repeat both it and
    the values of a row.
    """
    query = query or config.sql_query
    if not query:
        raise UserError("data.sql_query is not set: data.source=sql needs a query")
    where = f"the database of ${config.sql_url_env}"
    url = os.environ.get(config.sql_url_env)
    if not url:
        raise UserError(f"the environment variable {config.sql_url_env} is not set: database URL")
    count = 0
    try:
        engine = create_engine(url)
        try:
            for batch in _batches(engine, config, query):
                count += 1
                yield batch
        finally:
            engine.dispose()
    except NoSuchModuleError:
        raise UserError(f"{where}: SQLAlchemy does not know this kind of database") from None
    except ModuleNotFoundError as error:
        raise UserError(f"{where}: its driver is missing: pip install {error.name}") from None
    except DBAPIError as error:
        kind = type(error.orig).__name__
        raise UserError(f"{where}: the query failed ({kind}): check data.sql_query") from None
    except ArgumentError:
        raise UserError(f"{where}: the variable does not hold a database URL") from None
    except SQLAlchemyError as error:
        kind = type(error).__name__
        raise UserError(f"{where}: the query cannot be used ({kind}): write a SELECT") from None
    except UnicodeDecodeError:
        raise UserError(f"{where}: the query returns bytes that are not text") from None
    if not count:
        raise UserError("the SQL query returns no rows")


def _batches(engine: Engine, config: DataConfig, query: str) -> Iterator[Batch]:
    wanted = config.columns.all()
    with engine.connect() as connection:
        result = connection.execution_options(stream_results=True).execute(text(query))
        have = list(result.keys())
        require_columns("the SQL query", wanted, have)
        places = [have.index(name) for name in wanted]
        row = 1
        for part in result.partitions(BATCH_ROWS):
            columns: dict[str, list[object]] = {
                name: [record[place] for record in part]
                for name, place in zip(wanted, places, strict=True)
            }
            yield Batch("the SQL query", row, columns)
            row += len(part)
