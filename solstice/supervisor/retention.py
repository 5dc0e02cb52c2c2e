"""Forgets jobs that ended long ago: first their logs, then their rows.

In this order, because a row whose logs are gone comes again at the next time, and logs without a row would never be
found.  Called by an operator (`solstice db prune`), and once an hour for what is older than RETENTION.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from solstice.errors import UsageError
from solstice.host import clock, files
from solstice.protocol.lines import Message
from solstice.supervisor.store import Store, StoreRefused

EVERY = 3600.0

log = logging.getLogger(__name__)


class Retention:
    """`host` is the owner id, `jobs` the directory of the records, `age()` how many seconds are kept; 0: for ever."""

    def __init__(self, store: Store, host: str, jobs: Path, age: Callable[[], float]) -> None:
        self._store = store
        self._host = host
        self._jobs = jobs
        self._age = age

    async def prune(self, asked: Message) -> Any:
        """Forget what ended more than `older_than` seconds ago.  → `{"jobs": N}`; raises `UsageError`."""
        seconds = asked.get("older_than")
        if not isinstance(seconds, int | float) or seconds < 0:
            raise UsageError("prune", "older_than is no number of seconds", "solstice db prune --older-than 30d")
        return {"jobs": await self._forget(clock.wall() - seconds)}

    async def keep(self) -> None:
        """Do so on a timer, for ever."""
        while True:
            if self._age():
                try:
                    await self._forget(clock.wall() - self._age())
                except StoreRefused as refused:
                    log.error("old jobs are not forgotten: %s", refused)
            await asyncio.sleep(EVERY)

    async def _forget(self, older_than: float) -> int:
        after, count = 0, 0
        removed: list[str] = []
        while True:
            page = await self._store.ask("prune", older_than=older_than, after=after, removed=removed, host=self._host)
            count += len(removed)
            if not page["jobs"]:
                break
            ids = [job["id"] for job in page["jobs"]]
            # not in the loop: a directory can be large, and a disk slow
            removed = await asyncio.to_thread(_remove, self._jobs, ids)
            after = page["jobs"][-1]["seq"]
        if count:
            log.info("forgot jobs that ended long ago", extra={"count": count})
        return count


def _remove(jobs: Path, ids: Iterable[str]) -> list[str]:
    """Those whose logs are gone now, on the disk too."""
    removed = []
    for id in ids:
        try:
            files.remove_tree(jobs / id)
        except OSError as error:
            log.error("logs cannot be removed: %s", error.strerror, extra={"job": id})
        else:
            removed.append(id)
    files.sync(jobs)
    return removed
