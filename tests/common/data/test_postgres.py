"""The PostgreSQL example of docs/deploy.md against a real server on the loopback interface."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from common.data.reader import read
from common.data.schema import Columns, DataConfig
from common.errors import UserError
from deployment.environment import free_port

pytest.importorskip("psycopg", reason="psycopg is not installed")
PASSWORD = "correct horse"
CONFIG = DataConfig(
    source="sql",
    sql_url_env="NOTES_DB",
    sql_query="SELECT note, outcome FROM notes WHERE consent ORDER BY id",
    columns=Columns(text="note", label="outcome"),
    labels=["negative", "positive"],
)


def binaries() -> Path | None:
    """Where this machine has PostgreSQL's server."""
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((p for p in places if (p / "initdb").exists() and (p / "pg_ctl").exists()), None)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A fresh server with a table `notes` and a user that may only read; its URL, no password."""
    place = binaries()
    if place is None:
        pytest.skip("PostgreSQL's server (initdb, pg_ctl) is not installed")
    folder, port = tmp_path_factory.mktemp("pg"), free_port()
    # It refuses to run as root.
    root = os.getuid() == 0
    user = "nobody" if root else None
    if root:
        shutil.chown(folder, user)
        for parent in list(folder.parents)[:3]:
            parent.chmod(parent.stat().st_mode | 0o011)

    def run(program: str, *arguments: str) -> None:
        command = [str(place / program), "-D", str(folder / "data"), *arguments]
        # Its output may not be a pipe: the server would keep it open.
        with (folder / "out").open("wb") as log:
            subprocess.run(command, check=True, user=user, cwd=folder, stdout=log, stderr=log)

    (folder / "password").write_text(PASSWORD)
    run("initdb", "-A", "scram-sha-256", "-U", "admin", f"--pwfile={folder / 'password'}")
    options = f"-h 127.0.0.1 -p {port} -k {folder} -F"
    run("pg_ctl", "-w", "-l", str(folder / "log"), "-o", options, "start")
    try:
        engine = create_engine(f"postgresql+psycopg://admin:{PASSWORD}@127.0.0.1:{port}/postgres")
        with engine.begin() as connection:
            for statement in (
                "CREATE TABLE notes (id int, note text, outcome text, consent boolean)",
                "INSERT INTO notes VALUES (1, 'fünf Tage', 'positive', true), "
                "(2, 'a, \"b\"', 'negative', true), (3, 'no consent', 'positive', false)",
                f"CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'",
                "GRANT SELECT ON notes TO reader",
            ):
                connection.execute(text(statement))
        engine.dispose()
        yield f"127.0.0.1:{port}/postgres"
    finally:
        run("pg_ctl", "-w", "-m", "immediate", "stop")


def test_rows_come_with_the_password_from_the_environment(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTES_DB", f"postgresql+psycopg://reader:{PASSWORD}@{server}")
    table = read(CONFIG)
    assert list(table.texts) == ["fünf Tage", 'a, "b"']
    assert table.labels.tolist() == [1, 0]


@pytest.mark.parametrize("wrong", ["password", "query", "host", "write"])
def test_no_password_in_what_is_told(
    server: str, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    secret = "Geheimnis" if wrong == "password" else PASSWORD
    place = f"127.0.0.1:{free_port()}/x" if wrong == "host" else server
    monkeypatch.setenv("NOTES_DB", f"postgresql+psycopg://reader:{secret}@{place}")
    query = {"query": "SELECT nothing FROM notes", "write": "DELETE FROM notes"}.get(wrong)
    with pytest.raises(UserError, match="the query failed") as told:
        read(replace(CONFIG, sql_query=query or CONFIG.sql_query))
    assert secret not in str(told.value)
    assert "reader" not in str(told.value)
