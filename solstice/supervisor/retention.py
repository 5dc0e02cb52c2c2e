"""Forgets jobs that ended long ago: first their logs, then their rows.

In this order, because a row whose logs are gone comes again at the next time, and logs without a row are nobody's.
Those come into being when a database is restored or exchanged; they go as well, when they are as old.  The logs are
removed by a worker: a directory can be large, and a disk slow.  Called by an operator (`solstice db prune`), and once
an hour for what is older than RETENTION.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from solstice.errors import Cause, SolsticeError, UsageError
from solstice.host import clock
from solstice.protocol import order, reports
from solstice.protocol.lines import Message
from solstice.supervisor.children import errand
from solstice.supervisor.forkclient import ForkServer
from solstice.supervisor.store import Store

EVERY = 3600.0
# For one batch.
REMOVE_TIMEOUT = 600.0

log = logging.getLogger(__name__)


class Retention:
    """`host` is the owner id, `jobs` the directory of the records, `age()` how many seconds are kept; 0: for ever."""

    def __init__(self, store: Store, forkserver: ForkServer, host: str, jobs: Path, age: Callable[[], float]) -> None:
        self._store = store
        self._forkserver = forkserver
        self._host = host
        self._jobs = jobs
        self._age = age

    async def prune(self, asked: Message) -> Any:
        """Forget what ended more than `older_than` seconds ago.  → `{"jobs": N}`; raises `SolsticeError`."""
        seconds = asked.get("older_than")
        if not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
            raise UsageError("prune", "older_than is no number of seconds", "solstice db prune --older-than 30d")
        return {"jobs": await self._forget(clock.wall() - seconds)}

    async def keep(self) -> None:
        """Do so on a timer, for ever."""
        while True:
            if self._age():
                try:
                    await self._forget(clock.wall() - self._age())
                except SolsticeError as error:
                    log.error("old jobs are not forgotten: %s", error)
            await asyncio.sleep(EVERY)

    async def _forget(self, older_than: float) -> int:
        after, count = 0, 0
        removed: list[str] = []
        while True:
            page = await self._store.ask("prune", older_than=older_than, after=after, removed=removed, host=self._host)
            count += len(removed)
            if not page["jobs"]:
                break
            removed = await self._remove(job["id"] for job in page["jobs"])
            after = page["jobs"][-1]["seq"]
        if count:
            log.info("forgot jobs that ended long ago", extra={"count": count})
        await self._forget_unknown(older_than)
        return count

    async def _forget_unknown(self, older_than: float) -> None:
        old = await self._errand(order.Stale(self._jobs, older_than))
        known = set((await self._store.ask("known", jobs=old))["jobs"]) if old else set()
        if unknown := [id for id in old if id not in known]:
            removed = await self._remove(unknown)
            log.warning("removed old logs of jobs that the database does not know", extra={"count": len(removed)})

    async def _remove(self, ids: Iterable[str]) -> list[str]:
        """Those whose logs are gone now.  Raises `SolsticeError` if nobody could look after it."""
        return await self._errand(order.Forget(self._jobs, tuple(ids)))

    async def _errand(self, what: order.Forget | order.Stale) -> list[str]:
        try:
            answer = await errand(self._forkserver, what, REMOVE_TIMEOUT)
        except OSError as error:  # no descriptor left: there will be one again
            answer = reports.Failed(Cause.HYPERVISOR, str(error))
        if isinstance(answer, reports.Found):
            return list(answer.names)
        why = answer.why if answer else f"its worker died, or took longer than {REMOVE_TIMEOUT:.0f} s"
        raise SolsticeError("logs cannot be removed", why, "see whether the disk of the state directory is well")
