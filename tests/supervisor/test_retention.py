"""Logs and rows of old jobs go together, by the supervisor's one thread.  A real store and a real fork server."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from solstice.errors import SolsticeError, UsageError
from solstice.supervisor import retention
from solstice.supervisor.retention import Retention
from solstice.supervisor.store import Store
from tests.supervisor.scenes import OWNER, forkserver, run, server_process

DAY = 86400.0


@dataclass
class Host:
    """A host's store, its logs below `jobs`, and what forgets both."""

    store: Store
    jobs: Path
    retention: Retention

    async def ended(self, days_ago: float) -> str:
        """A job with logs, which ended some days ago."""
        job, at = str(uuid.uuid4()), time.time() - days_ago * DAY
        request = {"schema_version": "jobrequest.v1", "request_id": job, "steps": [{"run": "true"}]}
        await self.store.ask("accept", request=request, label="l", image="i", at=at, host=OWNER)
        await self.store.ask("finish", job=job, state="cancelled", cause="user.cancelled", at=at)
        record = self.jobs / job / "1"
        record.mkdir(parents=True)
        (record / "log").write_text("said\n")
        return job

    async def known(self) -> set[str]:
        return {job["id"] for job in (await self.store.ask("jobs"))["jobs"]}


@asynccontextmanager
async def host(folder: Path, age: float = 0.0) -> AsyncIterator[Host]:
    jobs = folder / "jobs"
    jobs.mkdir()
    store = Store(f"sqlite:///{folder}/solstice.db", OWNER)
    async with forkserver() as server:
        try:
            await store.open()
            yield Host(store, jobs, Retention(store, server, OWNER, jobs, lambda: age))
        finally:
            await store.close()


def test_logs_and_rows_go_together_and_no_thread_is_started(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with host(tmp_path) as here:
            for _ in range(3):
                await here.ended(31)
            recent = await here.ended(29)
            assert await here.retention.prune({"older_than": 30 * DAY}) == {"jobs": 3}
            assert [path.name for path in here.jobs.iterdir()] == [recent]
            assert await here.known() == {recent}
            assert threading.active_count() == 1

    run(scenario())


def test_old_logs_of_a_job_that_the_database_does_not_know_go_and_young_ones_stay(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with host(tmp_path) as here:
            old, young, other = str(uuid.uuid4()), str(uuid.uuid4()), "lost+found"
            known = await here.ended(29)
            long_ago = time.time() - 31 * DAY
            for name in (old, young, other):
                (here.jobs / name / "1").mkdir(parents=True)
                (here.jobs / name / "1" / "log").write_text("said\n")
            for name in (old, other, known):
                for path in (here.jobs / name / "1" / "log", here.jobs / name / "1", here.jobs / name):
                    os.utime(path, (long_ago, long_ago))
            assert await here.retention.prune({"older_than": 30 * DAY}) == {"jobs": 0}
            assert {path.name for path in here.jobs.iterdir()} == {young, other, known}

    run(scenario())


def test_logs_that_cannot_be_removed_keep_their_job_and_no_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with host(tmp_path) as here:
            stuck, _other = await here.ended(31), await here.ended(31)
            # a file where a directory is due: rmtree refuses it for root too
            (here.jobs / stuck).rename(tmp_path / "elsewhere")
            (here.jobs / stuck).write_text("")
            assert await here.retention.prune({"older_than": 0}) == {"jobs": 1}
            assert await here.known() == {stuck}

    run(scenario())


def test_a_disk_that_hangs_holds_up_nothing_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "REMOVE_TIMEOUT", 0.5)

    async def scenario() -> None:
        async with host(tmp_path) as here:
            job = await here.ended(31)
            server_process().suspend()
            with pytest.raises(SolsticeError, match="its worker died, or took longer"):
                await here.retention.prune({"older_than": 0})
            server_process().resume()
            assert await here.known() == {job}
            # in the end that worker may have done it all the same
            assert await here.retention.prune({"older_than": 0}) == {"jobs": 1}

    run(scenario())


def test_what_is_older_than_the_setting_is_forgotten_by_itself(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with host(tmp_path, age=30 * DAY) as here:
            await here.ended(31)
            keeping = asyncio.create_task(here.retention.keep())
            while await here.known():
                await asyncio.sleep(0.05)
            keeping.cancel()
            await asyncio.wait({keeping})
            assert os.listdir(here.jobs) == []  # noqa: PTH208 - the names are the question

    run(scenario())


@pytest.mark.parametrize("older_than", [None, "30d", -1, float("nan"), float("inf")])
def test_what_is_no_age_is_refused(older_than: object, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with host(tmp_path) as here:
            with pytest.raises(UsageError, match="no number of seconds"):
                await here.retention.prune({"older_than": older_than})

    run(scenario())
