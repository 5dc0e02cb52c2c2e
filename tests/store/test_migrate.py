"""The tables and their revisions: made, taken over, upgraded once, refused.  Real SQLite files."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from solstice.errors import UsageError
from solstice.store import migrate
from solstice.store.engine import opened
from tests.store.files import old_database, outsider, set_back
from tests.store.process import HOST, accept, finish, new_job, running_store


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "test.db"


def test_new_database_has_the_tables_of_the_schema(file: Path) -> None:
    with opened(f"sqlite:///{file}") as engine, engine.begin() as db:
        assert migrate.current(db) == migrate.HEAD
        assert migrate.differences(db) == []


def test_a_difference_between_tables_and_schema_is_found(file: Path) -> None:
    with opened(f"sqlite:///{file}") as engine, engine.begin() as db:
        db.execute(text("ALTER TABLE jobs ADD COLUMN mood VARCHAR"))
        (difference,) = migrate.differences(db)
        assert "mood" in difference


def test_database_from_before_the_migrations_is_taken_over_with_what_is_in_it(file: Path) -> None:
    old_database(file)
    with running_store(file) as store:
        (job,) = store.result("jobs")["jobs"]
        assert (job["id"][:8], job["state"], job["counted"]) == ("7f3a91c2", "running", 1)
        assert len(store.result("outbox")["events"]) == 2
        assert store.result(**finish(job["id"])) == {"repeated": False}
    with opened(f"sqlite:///{file}") as engine, engine.begin() as db:
        assert migrate.current(db) == migrate.HEAD
        assert migrate.differences(db) == []


def test_what_was_in_a_database_of_one_host_is_that_hosts(file: Path) -> None:
    old_database(file)
    with outsider(file) as connection:
        connection.execute("INSERT INTO hosts VALUES ('0123456789ab', 'here', 1.0)")
    with running_store(file) as store:
        assert len(store.result("open", host="0123456789ab")["jobs"]) == 1
        assert len(store.result("outbox", host="0123456789ab")["events"]) == 2
        assert store.result("open", host="ba9876543210")["jobs"] == []


def test_a_seq_of_a_database_that_was_taken_over_does_not_come_back(file: Path) -> None:
    old_database(file)
    with outsider(file) as connection:
        connection.execute("DELETE FROM attempts")
        connection.execute("DELETE FROM jobs")
    with running_store(file) as store:
        store.result(**accept(new_job()))
        assert [job["seq"] for job in store.result("jobs")["jobs"]] == [2]


def test_an_upgrade_is_announced_before_it_is_done_and_nothing_else_is(file: Path) -> None:
    url = f"sqlite:///{file}"
    with running_store(file):
        pass  # new tables are made without a word
    set_back(url)
    with running_store() as store:
        (number,) = store.write([{"op": "configure", "url": url, "host": HOST}])
        assert store.read() == {"id": number, "upgrading": True}
        assert store.read() == {"id": number, "ok": True, "result": {}}
    with running_store(file) as store:
        assert store.result("jobs") == {"jobs": []}


@pytest.mark.parametrize(
    "newer", ["UPDATE alembic_version SET version_num = '9999'", "CREATE TABLE schema_version AS SELECT 999 AS version"]
)
def test_newer_tables_are_refused_with_a_remedy_and_left_alone(file: Path, newer: str) -> None:
    with running_store(file) as store:
        assert store.close() == 0
    with outsider(file) as connection:
        connection.execute(newer)
        before = list(connection.iterdump())
    with running_store() as store:
        reply = store.ask("configure", url=f"sqlite:///{file}", host=HOST)
    assert reply["kind"] == "database"
    assert "its tables have version" in reply["error"]
    assert "999, and this Solstice knows version" in reply["error"]
    assert "install the newer Solstice" in reply["error"]
    with outsider(file) as connection:
        assert list(connection.iterdump()) == before


def test_a_migration_that_fails_leaves_the_database_as_it_was(file: Path) -> None:
    old_database(file)
    with outsider(file) as connection:
        # in the way of what the newest revision makes
        connection.execute("CREATE TABLE events (mine INTEGER)")
        before = list(connection.iterdump())
    with pytest.raises(UsageError, match="already exists"), opened(f"sqlite:///{file}"):
        pass
    with outsider(file) as connection:
        assert list(connection.iterdump()) == before
