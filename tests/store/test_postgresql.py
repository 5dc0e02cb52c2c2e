"""What only a server can do to the store: go, come back, hang, keep locks, serve others.  A real PostgreSQL."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from threading import Event
from typing import Any

import psycopg2
import pytest

from solstice.errors import UsageError
from solstice.protocol.lines import Message
from solstice.store import migrate
from solstice.store import postgresql as waiting
from solstice.store.engine import connect, opened, transaction
from solstice.store.group import answer
from tests.real.postgresql import Postgresql
from tests.real.waiting import until
from tests.store.files import set_back
from tests.store.process import HOST, accept, new_job, running_store, start

pytestmark = pytest.mark.postgresql

OTHER = "ba9876543210"
COUNTS: Message = {"op": "counts", "id": 1}


@pytest.fixture
def url(postgresql: Postgresql) -> Iterator[str]:
    with postgresql.database() as url:
        yield url


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "PATIENCE", 0.5)


@contextmanager
def outsider(url: str) -> Iterator[Any]:
    """A connection of another program, in a transaction."""
    with closing(psycopg2.connect(url)) as connection:
        yield connection


def test_server_that_was_started_again_costs_nobody_an_answer(postgresql: Postgresql, url: str) -> None:
    with running_store(url) as store:
        for end in (postgresql.stop, postgresql.crash):
            store.result(**accept(new_job()))
            end()
            postgresql.start()
        assert store.result("counts")["counts"]["accepted"] == 2


def test_server_that_is_gone_is_an_answer_until_it_is_back(postgresql: Postgresql, url: str) -> None:
    with running_store(url) as store:
        store.result(**accept(new_job()))
        postgresql.stop()
        try:
            for _ in range(3):
                reply = store.ask(**accept(new_job()))
                assert reply["kind"] == "database"
                assert "nothing was changed" in reply["error"]
                assert postgresql.password not in reply["error"]
        finally:
            postgresql.start()
        assert store.result("counts")["counts"]["accepted"] == 1


@pytest.mark.usefixtures("impatient")
def test_server_that_hangs_is_an_answer_in_time(postgresql: Postgresql, url: str) -> None:
    with opened(url, owner=HOST) as engine:
        postgresql.freeze()
        try:
            began = time.monotonic()
            (reply,) = answer(engine, [{**accept(new_job()), "id": 1}])
            assert time.monotonic() - began < 10 * waiting.PATIENCE
            assert (reply["ok"], reply["kind"]) == (False, "database")
            assert "did not answer within 0.5 s" in reply["error"]
        finally:
            postgresql.thaw()
        (reply,) = answer(engine, [COUNTS])
        assert reply["result"]["counts"]["accepted"] == 0


@pytest.mark.usefixtures("impatient")
def test_lock_that_another_program_keeps_is_an_answer_in_time(url: str) -> None:
    with opened(url) as engine, outsider(url) as other:
        other.cursor().execute("LOCK TABLE jobs")
        (reply,) = answer(engine, [COUNTS])
        assert reply["kind"] == "database"
        assert "statement timeout" in reply["error"]
        other.rollback()
        assert answer(engine, [COUNTS])[0]["ok"]


def test_request_that_two_hosts_accept_at_once_is_one_job(postgresql: Postgresql, url: str) -> None:
    job, neighbour = new_job(), new_job()
    with opened(url) as engine, outsider(url) as other, ThreadPoolExecutor() as pool:
        # the other host has stored it, and not yet committed
        other.cursor().execute(
            "INSERT INTO jobs (id, request, label, image, state, detail, attempts, accepted_at)"
            " VALUES (%s, '{}', 'x', 'x', 'accepted', '', 0, 0.5)",
            [job],
        )
        asked = [{**accept(each), "id": each} for each in (neighbour, job)]
        waits = pool.submit(answer, engine, asked)
        until(lambda: _waiting(postgresql, url) == 1, seconds=20, what="the wait for the other host", evidence=str)
        other.commit()
        mine, theirs = waits.result()
    assert mine["result"] == {"new": True, "state": "accepted"}
    assert theirs["result"] == {"new": False, "state": "accepted"}


@pytest.mark.usefixtures("impatient")
def test_a_migration_of_large_tables_takes_as_long_as_it_takes(postgresql: Postgresql, url: str) -> None:
    announced = Event()
    with opened(url):
        pass
    set_back(url)
    with ExitStack() as stack, outsider(url) as other, ThreadPoolExecutor() as pool:
        # in the place of a table that takes long
        other.cursor().execute("LOCK TABLE jobs")
        upgraded = pool.submit(lambda: stack.enter_context(opened(url, on_upgrade=announced.set)))
        until(lambda: _waiting(postgresql, url) == 1, seconds=20, what="the migration", evidence=str)
        assert announced.is_set()
        with pytest.raises(TimeoutError):
            upgraded.result(4 * waiting.PATIENCE)
        other.rollback()
        engine = upgraded.result(20)
        with engine.begin() as db:
            assert migrate.differences(db) == []
        other.cursor().execute("LOCK TABLE jobs")
        (reply,) = answer(engine, [COUNTS])
        assert "statement timeout" in reply["error"], "an ordinary statement has its limit again"
        other.rollback()


def test_a_request_that_another_host_accepts_at_the_same_moment_is_not_refused(
    postgresql: Postgresql, url: str
) -> None:
    job = new_job()
    with opened(url) as engine, outsider(url) as other, ThreadPoolExecutor() as pool:
        other.cursor().execute(
            "INSERT INTO jobs (id, request, label, image, state, host, detail, attempts, accepted_at) "
            "VALUES (%s, '{}', 'l', 'i', 'accepted', %s, '', 0, 1.0)",
            (job, OTHER),
        )
        # the first of the two is at fault, so each is carried out by itself
        replies = pool.submit(answer, engine, [start(new_job()), {**accept(job), "host": HOST}])
        until(lambda: _waiting(postgresql, url) == 1, seconds=20, what="the other host", evidence=str)
        other.commit()
        refused, accepted = replies.result(20)
    assert refused["kind"] == "unknown_job"
    assert accepted["result"] == {"new": False, "state": "accepted"}


def _waiting(server: Postgresql, url: str) -> int:
    return len(server.execute("SELECT pid FROM pg_locks WHERE NOT granted", url))


def test_stores_that_start_at_once_make_the_tables_once(url: str) -> None:
    with running_store(host=HOST) as first, running_store(host=OTHER) as second:
        for store in (first, second):
            store.write([{"op": "configure", "url": url, "host": store.host}])
        assert [store.read()["ok"] for store in (first, second)] == [True, True]
        first.result(**accept(new_job()))
        assert second.result("counts")["counts"]["accepted"] == 1


def test_a_lost_connection_loses_the_hosts_lock_and_the_next_one_takes_it_again(
    postgresql: Postgresql, url: str
) -> None:
    with opened(url, 20.0, HOST) as engine:
        for end in (postgresql.stop, postgresql.crash):
            end()
            postgresql.start()
            assert answer(engine, [COUNTS])[0]["ok"]
            with pytest.raises(UsageError, match="in use by this host"), opened(url, 0.0, HOST):
                pass


def test_a_store_that_finds_its_lock_taken_carries_nothing_out(postgresql: Postgresql, url: str) -> None:
    with opened(url, 0.2, HOST) as old:
        postgresql.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'", url)
        with opened(url, 20.0, HOST) as new:
            for _ in range(2):
                with pytest.raises(UsageError, match=f"pid {os.getpid()} on .* holds it"):
                    answer(old, [{**accept(new_job()), "id": 1}])
            assert answer(new, [COUNTS])[0]["result"]["counts"]["accepted"] == 0
        assert answer(old, [COUNTS])[0]["ok"]


def test_another_host_and_a_person_are_not_kept_out(url: str) -> None:
    with opened(url, 0.0, HOST), opened(url, 0.0, OTHER) as other, opened(url, 0.0) as person:
        assert answer(other, [COUNTS])[0]["ok"]
        assert answer(person, [COUNTS])[0]["ok"]


def test_new_database_has_the_tables_of_the_schema(url: str) -> None:
    with opened(url) as engine, engine.begin() as db:
        assert migrate.current(db) == migrate.HEAD
        assert migrate.differences(db) == []


def test_newer_tables_are_refused_with_a_remedy(postgresql: Postgresql, url: str) -> None:
    with opened(url):
        pass
    postgresql.execute("UPDATE alembic_version SET version_num = '9999'", url)
    with pytest.raises(UsageError, match="install the newer Solstice again"), opened(url):
        pass


@pytest.mark.parametrize("options", ["", "?password=wrong-secret"])
def test_wrong_password_is_refused_and_not_shown(postgresql: Postgresql, options: str) -> None:
    with running_store() as store:
        url = postgresql.url(password="wrong-secret") + options  # noqa: S106 - it is the wrong one
        reply = store.ask("configure", url=url, host=HOST)
        assert reply["kind"] == "database"
        assert "password authentication failed" in reply["error"]
        assert "this host, user and password" in reply["error"]
        assert "secret" not in reply["error"]


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg2"])
def test_both_names_of_the_driver_are_the_same(postgresql: Postgresql, scheme: str) -> None:
    engine = connect(postgresql.url().replace("postgresql", scheme, 1))
    with transaction(engine) as db:
        assert db.dialect.driver == "psycopg2"
    engine.dispose()
