"""The supervisor's end of the store, with the real store process."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import psutil
import psycopg2
import pytest

from solstice.errors import UsageError
from solstice.protocol.store import ErrorKind
from solstice.store.engine import opened as newest
from solstice.supervisor import child
from solstice.supervisor import store as supervisors
from solstice.supervisor.store import Store, StoreRefused
from tests.real.postgresql import Postgresql
from tests.store.files import set_back
from tests.supervisor.scenes import OWNER, run


def url(folder: Path) -> str:
    return f"sqlite:///{folder}/solstice.db"


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Store]:
    store = Store(url(folder), OWNER)
    try:
        await store.open()
        yield store
    finally:
        await store.close()


def document() -> dict[str, object]:
    return {"schema_version": "jobrequest.v1", "request_id": str(uuid.uuid4()), "steps": [{"run": "true"}]}


def process() -> psutil.Process:
    (found,) = [child for child in psutil.Process().children() if "store" in " ".join(child.cmdline())]
    return found


def test_what_is_asked_is_answered_and_what_is_refused_raises(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            assert await store.change("accept", request=document(), label="l", image="i", at=1.0) == {
                "new": True,
                "state": "accepted",
            }
            with pytest.raises(StoreRefused, match="nonsense"):
                await store.ask("nonsense")

    run(scenario())


def test_a_question_whose_store_dies_is_answered_by_the_next(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            first = process()
            first.suspend()
            asked = [
                asyncio.create_task(store.change("accept", request=document(), label="l", image="i", at=1.0))
                for _ in range(20)
            ]
            await asyncio.sleep(0)
            first.kill()
            answers = await asyncio.gather(*asked)
            assert all(answer["new"] for answer in answers)
            assert (await store.ask("counts"))["counts"]["accepted"] == 20

    run(scenario())


def test_a_database_that_is_gone_for_a_while_costs_time_and_nothing_else(tmp_path: Path) -> None:
    async def scenario() -> None:
        folder = tmp_path / "state"
        folder.mkdir()
        async with opened(folder) as store:
            folder.rename(tmp_path / "elsewhere")
            process().kill()
            asked = asyncio.create_task(store.change("accept", request=document(), label="l", image="i", at=1.0))
            done, _ = await asyncio.wait({asked}, timeout=2.5)
            assert not done
            (tmp_path / "elsewhere").rename(folder)
            assert (await asked)["new"] is True

    run(scenario())


class Heard(logging.Handler):
    """Sets an event when its logger says anything."""

    def __init__(self) -> None:
        super().__init__()
        self.event = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.event.set()


def rename(folder: Path, table: str, to: str) -> None:
    with sqlite3.connect(folder / "solstice.db") as db:
        db.execute(f"ALTER TABLE {table} RENAME TO {to}")
    db.close()


def test_a_change_that_the_database_refuses_is_tried_until_it_takes_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            rename(tmp_path, "jobs", "elsewhere")
            with pytest.raises(StoreRefused, match="no such table"):
                await store.ask("accept", request=document(), label="l", image="i", at=1.0)
            heard = Heard()
            logging.getLogger("solstice.supervisor.store").addHandler(heard)
            asked = asyncio.create_task(store.change("accept", request=document(), label="l", image="i", at=1.0))
            await heard.event.wait()
            assert not asked.done()
            rename(tmp_path, "elsewhere", "jobs")
            assert (await asked)["new"] is True
            logging.getLogger("solstice.supervisor.store").removeHandler(heard)

    run(scenario())
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_change_that_is_wrong_is_refused_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            with pytest.raises(StoreRefused) as refused:
                await store.change("finish", job=str(uuid.uuid4()), state="succeeded", at=1.0)
            assert refused.value.kind is ErrorKind.UNKNOWN_JOB

    run(scenario())


@pytest.mark.postgresql
def test_a_start_waits_for_a_migration_and_the_log_says_so(
    postgresql: Postgresql, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisors, "OPEN_TIMEOUT", 5.0)

    async def scenario(url: str) -> None:
        store = Store(url, OWNER)
        with closing(psycopg2.connect(url)) as other:
            # in the place of a table that takes long
            other.cursor().execute("LOCK TABLE jobs")
            opening = asyncio.create_task(store.open())
            done, _ = await asyncio.wait({opening}, timeout=7.5)
            assert not done
            assert store.state == "upgrading its tables, which may take long"
        await opening
        assert store.state == "ok"
        assert (await store.ask("counts"))["counts"]["accepted"] == 0
        await store.close()

    with postgresql.database() as url:
        with newest(url):
            pass
        set_back(url)
        run(scenario(url))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "being upgraded, which may take long" in caplog.text


def test_a_database_that_cannot_be_opened_at_the_start_is_the_operators_fault(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = Store(url(tmp_path / "missing"), OWNER)
        with pytest.raises(UsageError, match="the database cannot be used"):
            await store.open()
        await store.close()

    run(scenario())


def test_why_a_restarted_store_cannot_open_the_database_is_said_once_and_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def refusals() -> list[str]:
        return [record.message for record in caplog.records if "cannot open the database" in record.message]

    async def scenario() -> None:
        async with opened(tmp_path) as store:
            with closing(sqlite3.connect(tmp_path / "solstice.db")) as database:
                (revision,) = database.execute("SELECT version_num FROM alembic_version").fetchone()
                database.execute("UPDATE alembic_version SET version_num = '9999'")
                database.commit()
                process().kill()
                while caplog.text.count("ended by itself") < 3:
                    await asyncio.sleep(0.05)
                assert "its tables have version 9999" in store.state
                database.execute("UPDATE alembic_version SET version_num = ?", (revision,))
                database.commit()
            assert await store.ask("counts")
            assert store.state == "ok"

    run(scenario())
    assert len(refusals()) == 1


def test_a_store_that_is_stopped_with_much_unread_is_killed_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "END_TIMEOUT", 0.5)

    async def scenario() -> None:
        store = Store(url(tmp_path), OWNER)
        await store.open()
        stopped = process()
        stopped.suspend()
        padded = {**document(), "env": {"A": "x" * 400_000}}
        asked = [asyncio.ensure_future(store.ask("accept", request=padded)) for _ in range(4)]
        await asyncio.sleep(0)
        await store.close()
        assert not stopped.is_running()
        for each in asked:
            each.cancel()

    run(scenario())


def test_a_question_whose_asker_has_gone_is_forgotten_and_its_answer_let_pass(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            stopped = process()
            stopped.suspend()
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(store.ask("counts"), 0.05)
            assert store.state == "ok", "nobody waits for it"
            stopped.resume()
            assert await store.ask("counts")

    run(scenario())
