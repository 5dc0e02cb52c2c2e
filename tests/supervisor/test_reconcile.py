"""The pass over the store when one of its questions fails: what is not known is left to the next pass."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Any

from solstice.host.places import Places
from solstice.protocol.store import ErrorKind
from solstice.supervisor.reconcile import Reconcile
from solstice.supervisor.scheduler import Scheduler
from solstice.supervisor.store import StoreRefused
from tests.supervisor.hosts import Host

OWNER = "0" * 12
JOB = str(uuid.UUID(int=1))


class Store:
    """Has one running job with an open attempt, says so in a page, and refuses every question about it."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def change(self, op: str, **_fields: Any) -> Any:
        self.asked.append(op)
        if op != "open":
            raise StoreRefused(op, "no such thing", ErrorKind.BAD_REQUEST)
        attempt = {"job": JOB, "attempt": 1, "phase": "running", "reported": 3, "pid": 7}
        return {"jobs": [{"id": JOB, "seq": 1, "state": "running"}], "attempts": [attempt], "more": False}


class Dispatch:
    owner = OWNER

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler

    def has(self, _job: str) -> bool:
        return False


def test_a_job_whose_attempt_could_not_be_looked_at_is_left_to_the_next_pass() -> None:
    store = Store()

    async def scenario() -> None:
        dispatch: Any = Dispatch(Host().scheduler)
        reconcile = Reconcile(store, dispatch, None, Places(Path("/x"), Path("/x")))  # type: ignore[arg-type]
        await reconcile._reconcile_store()

    asyncio.run(scenario())
    assert store.asked == ["open", "job"]
