"""The PostgreSQL of the tests keeps what it promises to them."""

from __future__ import annotations

import psycopg2
import pytest

from tests.real.leftovers import live
from tests.real.postgresql import Postgresql

pytestmark = pytest.mark.postgresql


def test_what_was_committed_is_there_after_each_end_and_nothing_after_close() -> None:
    server = Postgresql()
    try:
        server.start()
        server.execute("CREATE TABLE kept (number INTEGER)")
        for number, end in enumerate((server.stop, server.crash)):
            server.execute(f"INSERT INTO kept VALUES ({number})")  # noqa: S608
            end()
            with pytest.raises(psycopg2.OperationalError):
                server.execute("SELECT 1")
            server.start()
        assert server.execute("SELECT number FROM kept ORDER BY number") == [(0,), (1,)]
        processes = server.processes()
    finally:
        server.close()
    assert len(processes) > 1
    assert not live().keys() & set(processes)
    assert not server.folder.exists()


def test_a_frozen_server_can_be_closed() -> None:
    server = Postgresql()
    try:
        server.start()
        server.freeze()
    finally:
        server.close()


def test_a_database_is_dropped_with_whoever_is_connected(postgresql: Postgresql) -> None:
    with postgresql.database() as url:
        connection = psycopg2.connect(url)
    name = url.rpartition("/")[2]
    assert (name,) not in postgresql.execute("SELECT datname FROM pg_database")
    connection.close()


def test_the_password_counts(postgresql: Postgresql) -> None:
    with pytest.raises(psycopg2.OperationalError, match="password"):
        psycopg2.connect(postgresql.url(password="wrong"))  # noqa: S106 - it is the wrong one
