"""How the attempts of a host end when the host stops: what ends soon ends, the rest goes back, and nothing is left."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from solstice.config.settings import Settings
from solstice.errors import Cause
from solstice.protocol import order
from solstice.supervisor import endings
from solstice.supervisor.attempt import CLEAN_TIMEOUT, Attempts
from solstice.supervisor.scheduler import Scheduler

# What cleaning may take after the guest's own shutdown, before the supervisor leaves the rest to the next start.
STOP_MARGIN = 15.0

log = logging.getLogger(__name__)


class Stopping:
    """`hurrying` is set when nobody wants to wait for jobs and guests any more."""

    def __init__(self, settings: Settings, scheduler: Scheduler, attempts: Attempts, hurrying: asyncio.Event) -> None:
        self._settings = settings
        self._scheduler = scheduler
        self._attempts = attempts
        self._hurrying = hurrying

    async def run(self) -> list[str]:
        """The names of the VMs that could not be removed."""
        scheduler = self._scheduler
        scheduler.close()
        seconds = f"{self._settings.drain_timeout:g}"
        log.info("stopping; a second signal hurries", extra={"jobs": len(scheduler.active), "seconds": seconds})
        await self._unless_hurried(scheduler.idle(self._settings.drain_timeout))
        self._stop(hurry=self._hurrying.is_set())
        await self._unless_hurried(scheduler.idle(self._settings.vm_shutdown_timeout + STOP_MARGIN))
        self._attempts.leaving = True
        self._stop(hurry=True)
        if not await scheduler.idle(STOP_MARGIN):
            self._kill_hung_workers()
        await scheduler.idle(CLEAN_TIMEOUT)
        left = self._attempts.left + [active.id.name for active in scheduler.active.values()]
        if not left:
            return []
        log.error("leaving VMs behind, which the next start removes", extra={"names": ",".join(left)})
        return left

    def _stop(self, *, hurry: bool) -> None:
        """Tell every attempt that its host stops: its job goes back and runs at the next start."""
        outcome = endings.errored(Cause.HOST_STOPPING, "the supervisor was asked to stop")
        for active in self._scheduler.active.values():
            active.stop(order.Stop(outcome, hurry))

    def _kill_hung_workers(self) -> None:
        """What did not end although it was told to in a hurry hangs; its cleaner takes over."""
        for active in self._scheduler.active.values():
            if active.worker is not None:
                log.error("worker hangs, killing it", extra={"job": active.job.id, "pid": active.worker.pid})
                active.worker.kill()

    async def _unless_hurried(self, waiting: Coroutine[Any, Any, bool]) -> None:
        idle = asyncio.create_task(waiting)
        hurried = asyncio.create_task(self._hurrying.wait())
        await asyncio.wait({idle, hurried}, return_when=asyncio.FIRST_COMPLETED)
        for task in (idle, hurried):
            task.cancel()
