"""The pending and the active jobs of this host, and the one pass that starts whatever may start.

`pump` is level-triggered: the pass looks at what there is and not at what happened, so it may be asked for at any
time, and too often does no harm.  What is decided stands in turns.py and capacity.py; here are the jobs, the clock
and the tasks.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Container, Coroutine

from solstice.model import AttemptId
from solstice.supervisor.capacity import Claim, Limits, Obstacle, Resource, Usage
from solstice.supervisor.jobs import Active, Job
from solstice.supervisor.labels import Labels
from solstice.supervisor.turns import Turns, consider

# Free disk, and what reservations make of time, change without an event.
LOOK_AGAIN = 5.0

log = logging.getLogger(__name__)


class Scheduler:
    """`gate(job)` says why a job cannot start, labels and capacity apart, or None; `run(active)` is one attempt.

    `free_disk()` is in MiB.  `on_change` is called whenever a job came, started or ended.
    """

    def __init__(
        self,
        owner: str,
        limits: Limits,
        free_disk: Callable[[], int],
        gate: Callable[[Job], str | None],
        run: Callable[[Active], Coroutine[None, None, None]],
        on_change: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._owner = owner
        self._clock = clock
        self._free_disk = free_disk
        self._gate = gate
        self._run = run
        self._on_change = on_change
        self._tasks: set[asyncio.Task[None]] = set()
        self._next: asyncio.TimerHandle | asyncio.Handle | None = None
        self._next_is_now = False
        self._open = False
        self.limits = limits
        self.labels = Labels()
        self.turns = Turns()
        self.pending: dict[str, Job] = {}
        self.active: dict[str, Active] = {}
        self.errands: dict[AttemptId, Claim] = {}
        """VMs that belong to no job, there or wanted, the oldest first: no job takes their room."""
        self.requeue: Callable[[Job], None] = self.add
        """Takes a job that is to be tried again."""

    def open(self) -> None:
        """From now on jobs are started; before, they are only counted."""
        self._open = True
        self.pump()

    def add(self, job: Job) -> None:
        """A job was accepted."""
        self.active.pop(job.id, None)  # one that is lost
        self.pending[job.id] = job
        self.pump()

    def pump(self) -> None:
        """Start every pending job that may start, in their turn; soon, and once for all who ask until then."""
        if not self._next_is_now:
            self._cancel_next()
            self._next_is_now = True
            self._next = asyncio.get_running_loop().call_soon(self._pass)

    def is_short_for(self, errand: AttemptId) -> bool:
        """Whether there is no room yet for a VM of `errands`, beside the jobs and the errands that came before it."""
        return self.usage(errand).obstacle(self.errands[errand]) is not None

    def usage(self, before: AttemptId | None = None) -> Usage:
        """What is taken now; for an errand only by those `before` it, or two that wait would wait for each other."""
        usage = Usage(self.limits, self._free_disk())
        for id, claim in self.errands.items():
            if id == before:
                break
            usage.add(claim, booting=True)
        for active in self.active.values():
            usage.add(active.job.claim, booting=active.is_booting)
        return usage

    def places(self) -> list[tuple[Job, Obstacle | None]]:
        """Every pending job in its turn with what it waits for, changing nothing; None: the next pass starts it."""
        now = self._clock()
        return list(consider(self.pending.values(), self._running(), self.usage(), self.gate, self.turns.copy(), now))

    def gate(self, job: Job) -> Obstacle | None:
        """What keeps a job, capacity apart."""
        now = self._clock()
        text = self.labels.obstacle(job.image.name, now) or self._gate(job)
        if text is None and now < job.not_before:
            text = f"attempt {job.attempt - 1} failed by this host's fault, the next is in {job.not_before - now:.0f} s"
        return Obstacle(Resource.OTHER, text) if text else None

    def close(self) -> None:
        """Start nothing any more."""
        self._open = False
        self._cancel_next()

    async def begun(self, timeout: float) -> None:
        """Start nothing any more, and wait until each worker can be adopted, at most `timeout` seconds."""
        self.close()
        waiting = [asyncio.create_task(active.begun.wait()) for active in self.active.values()]
        if waiting:
            await asyncio.wait(waiting, timeout=timeout)
        for task in waiting:
            task.cancel()

    async def abandon(self) -> None:
        """Follow no attempt any more; whoever comes next finds them in the store and at their sockets."""
        self.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def idle(self, timeout: float) -> bool:
        """True when no attempt is left within `timeout` seconds."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)
        return not self._tasks

    def _retries(self) -> list[float]:
        return [job.not_before for job in self.pending.values() if job.not_before]

    def _running(self) -> list[Job]:
        return [active.job for active in self.active.values()]

    def _cancel_next(self) -> None:
        if self._next is not None:
            self._next.cancel()
        self._next, self._next_is_now = None, False

    def _pass(self) -> None:
        self._next, self._next_is_now = None, False
        if self._open and self.pending:
            now = self._clock()
            self._start_what_may(now)
            times = [at for at in (self.labels.next_change(now), *self._retries()) if at is not None and at > now]
            wake = min([*times, now + LOOK_AGAIN])
            self._next = asyncio.get_running_loop().call_later(wake - now, self.pump)
        self._on_change()

    def _start_what_may(self, now: float) -> None:
        usage = self.usage()
        if usage.full() is not None:
            return
        decisions = consider(list(self.pending.values()), self._running(), usage, self.gate, self.turns, now)
        for job, obstacle in decisions:
            if obstacle is None:
                self._start(job, now)
            elif obstacle.is_everybodys:
                break
        jobs = [*self.pending.values(), *self._running()]
        self.turns.forget({job.request.repo_url for job in jobs}, self.pending)

    def adopt(self, active: Active, rest: Coroutine[None, None, None]) -> None:
        """Count an attempt that another supervisor began; `rest` is what is left of it."""
        self._follow(active, rest)

    def forget_lost(self, kept: Container[AttemptId]) -> None:
        """The store has been gone through: what is lost still, and not `kept`, has ended there."""
        for active in list(self.active.values()):
            if active.is_lost and active.id not in kept:
                del self.active[active.job.id]
        self.pump()

    def _start(self, job: Job, now: float) -> None:
        del self.pending[job.id]
        active = Active(job, AttemptId(self._owner, job.id, job.attempt), since=now)
        self.labels.started(job.image.name, job.id)
        self._follow(active, self._run(active))

    def _follow(self, active: Active, work: Coroutine[None, None, None]) -> None:
        self.active[active.job.id] = active
        task = asyncio.create_task(work, name=active.id.name)
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._ended(active, task))

    def _ended(self, active: Active, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        job = active.job
        self.labels.ended(job.image.name, job.id, active.outcome, self._clock())
        if not task.cancelled() and task.exception() is not None:
            # What this job left is unknown, so its slot stays taken; the next pass over the store finds it there.
            log.critical("attempt lost by a fault of Solstice", extra={"job": job.id}, exc_info=task.exception())
            active.is_lost = True
            return
        del self.active[job.id]
        if active.again is not None and not task.cancelled():
            self.requeue(active.again)
        self.pump()
