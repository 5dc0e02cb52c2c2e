"""The pending and the active jobs of this host, and the one pass that starts whatever may start.

`pump` is level-triggered: it looks at what there is and not at what happened, so it may be called at any time, and too
often does no harm.  A job that has to wait never blocks one behind it that need not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine

from solstice.host import clock
from solstice.model import AttemptId
from solstice.supervisor.capacity import Capacity
from solstice.supervisor.jobs import Active, Job

log = logging.getLogger(__name__)


class Scheduler:
    """`gate(job)` says why a job cannot start, capacity apart, or None; `run(active)` is one attempt.

    `on_change` is called whenever a job came, started or ended.
    """

    def __init__(
        self,
        owner: str,
        capacity: Capacity,
        gate: Callable[[Job], str | None],
        run: Callable[[Active], Coroutine[None, None, None]],
        on_change: Callable[[], None],
    ) -> None:
        self._owner = owner
        self._capacity = capacity
        self._gate = gate
        self._run = run
        self._on_change = on_change
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = True
        self.pending: dict[str, Job] = {}
        self.active: dict[str, Active] = {}

    @property
    def total(self) -> int:
        return self._capacity.total

    def add(self, job: Job) -> None:
        """A job was accepted."""
        self.pending[job.id] = job
        self.pump()

    def obstacle(self, job: Job) -> str | None:
        """Why a pending job does not run."""
        running = [active.job.image.name for active in self.active.values()]
        return self._gate(job) or self._capacity.obstacle(job.image.name, running)

    def pump(self) -> None:
        """Start every pending job that may start, the oldest first."""
        if self._open:
            for job in list(self.pending.values()):
                if self.obstacle(job) is None:
                    self._start(job)
        self._on_change()

    def close(self) -> None:
        """Start nothing any more."""
        self._open = False

    async def idle(self, timeout: float) -> bool:
        """True when no attempt is left within `timeout` seconds."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)
        return not self._tasks

    def _start(self, job: Job) -> None:
        del self.pending[job.id]
        active = Active(job, AttemptId(self._owner, job.id, job.attempt), since=clock.wall())
        self.active[job.id] = active
        task = asyncio.create_task(self._run(active), name=active.id.name)
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._ended(active, task))

    def _ended(self, active: Active, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            # What this job left is unknown, so its slot stays taken; the next start finds it in the store.
            log.critical("attempt lost by a fault of Solstice", extra={"job": active.job.id}, exc_info=task.exception())
            return
        del self.active[active.job.id]
        self.pump()
