from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import create_engine, text

from common.data.reader import read
from common.data.schema import Columns, DataConfig
from common.errors import UserError

SECRET = "Geheimnis"
CONFIG = DataConfig(
    source="sql",
    sql_url_env="NOTES_URL",
    sql_query="select note, kind, site from notes order by id",
    columns=Columns(text="note", label="kind", groups=["site"]),
    labels=["neg", "pos"],
)


@pytest.fixture
def database(tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path / 'notes.sqlite'}"
    monkeypatch.setenv("NOTES_URL", url)
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("create table notes (id integer, note, kind, site)"))
        connection.execute(
            text("insert into notes values (:id, :note, :kind, :site)"),
            [
                {"id": 1, "note": "one, two", "kind": "pos", "site": "a"},
                {"id": 2, "note": "fünf", "kind": "neg", "site": None},
            ],
        )
    yield engine
    engine.dispose()


def insert(engine, **row):
    with engine.begin() as connection:
        names = ", ".join(row)
        values = ", ".join(f":{name}" for name in row)
        connection.execute(text(f"insert into notes ({names}) values ({values})"), row)


def fails(config):
    with pytest.raises(UserError) as caught:
        read(config)
    message = str(caught.value)
    assert SECRET not in message
    assert "\n" not in message
    return message


def test_query(database):
    table = read(CONFIG)
    assert list(table.texts) == ["one, two", "fünf"]
    assert table.labels.tolist() == [1, 0]
    assert table.groups["site"].tolist() == ["a", ""]
    assert table.place(1) == "the SQL query: row 2"


def test_another_query_for_the_test_set(database):
    assert len(read(CONFIG, "select note, kind, site from notes where id = 2")) == 1


def test_nothing_is_committed(database):
    message = fails(replace(CONFIG, sql_query="delete from notes"))
    assert message.endswith("the query cannot be used (ResourceClosedError): write a SELECT")
    assert len(read(CONFIG)) == 2


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"note": None, "kind": "pos"}, "column 'note': the text is missing"),
        ({"note": b"\xff\xfe", "kind": "pos"}, "column 'note': the value is not text"),
        ({"note": SECRET, "kind": None}, "column 'kind': the label is missing"),
        ({"note": "x", "kind": SECRET}, "column 'kind': the label is not one of the 2 in"),
    ],
)
def test_faults_in_rows(database, row, problem):
    insert(database, id=3, **row)
    assert fails(CONFIG).startswith(f"the SQL query: row 3, {problem}")


def test_faults_of_the_query(database):
    where = "the database of $NOTES_URL"
    assert fails(replace(CONFIG, sql_query=f"select {SECRET} from notes")) == (
        f"{where}: the query failed (OperationalError): check data.sql_query"
    )
    assert fails(replace(CONFIG, sql_query="select note, site from notes")) == (
        "the SQL query: no column 'kind' (columns: note, site): set data.columns"
    )
    none = replace(CONFIG, sql_query=f"{CONFIG.sql_query.replace('order', 'where 0 order')}")
    assert fails(none) == "the SQL query returns no rows"
    assert fails(replace(CONFIG, sql_query=None)).startswith("data.sql_query is not set")


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        (None, "the environment variable NOTES_URL is not set: database URL"),
        (f"{SECRET}", "the database of $NOTES_URL: the variable does not hold a database URL"),
        (f"nosuch://me:{SECRET}@host/db", "SQLAlchemy does not know this kind of database"),
        (f"mssql+pymssql://me:{SECRET}@host/db", "its driver is missing: pip install pymssql"),
        (f"sqlite:////no/{SECRET}/db", "the query failed (OperationalError)"),
    ],
)
def test_the_url_never_shows(monkeypatch, url, problem):
    if url is None:
        monkeypatch.delenv("NOTES_URL", raising=False)
    else:
        monkeypatch.setenv("NOTES_URL", url)
    assert problem in fails(CONFIG)
