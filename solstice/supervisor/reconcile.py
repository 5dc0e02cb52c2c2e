"""Makes store, workers, job directories and hypervisor agree; at start and then on a timer, by one and the same pass.

How they can differ, and what becomes of it:

    an attempt is open in the store, and nobody here follows it: an earlier supervisor ended, or handed over.  It is
    adopted; if its worker is gone too (the host was rebooted, somebody killed it), its journal says how far it came,
    and its VM is removed.  So is one whose follower here ended by a fault of ours;
    a job runs in the store and has no open attempt: a database was restored.  It ends with infra.host_lost;
    a job waits in the store and not here: the same as the first, before its first attempt or between two;
    the hypervisor has a VM of this owner, or a job's directory something of one, whose attempt is neither open nor
    followed: a worker or cleaner was killed while libvirtd carried out what it had asked for.  It is removed.

What this pass does not touch: what belongs to another owner or to nobody, and whatever an attempt that is followed
here has.  That last is the lock between this pass and the normal path: `Scheduler.active` has every attempt from
before its row until after its VM, both paths read and change it in the supervisor's one thread, and an attempt that
has left it never comes back.  An item that fails is told and left to the next pass; the others go on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import replace

from solstice.errors import Cause, RequestError, SolsticeError, UsageError
from solstice.host import clock, racepoints
from solstice.host.places import Places
from solstice.lifecycle import JobState, Phase
from solstice.model import AttemptId, Backend
from solstice.protocol import jobrequest, order, reports
from solstice.protocol.lines import Message
from solstice.supervisor import endings
from solstice.supervisor.attempt import MAX_RETRY_DELAY
from solstice.supervisor.children import errand
from solstice.supervisor.dispatch import Dispatch
from solstice.supervisor.forkclient import ForkServer
from solstice.supervisor.jobs import Active, Job
from solstice.supervisor.store import Store

EVERY = racepoints.sooner(300.0)
LIST_TIMEOUT = 120.0
CLEAN_TIMEOUT = 60.0
# A start waits for them, and so does every job: one that hangs should not hold up the others.
CLEANERS = 8

log = logging.getLogger(__name__)


class Reconcile:
    def __init__(self, store: Store, dispatch: Dispatch, forkserver: ForkServer, places: Places) -> None:
        self._store = store
        self._dispatch = dispatch
        self._forkserver = forkserver
        self._places = places
        self._open: set[AttemptId] = set()
        """What the store had as open in this pass, followed by now or not: nothing of that is removed."""

    async def begin(self) -> None:
        """The first pass, before anything is accepted.  Raises `UsageError` if the hypervisor does not answer."""
        racepoints.reach("supervisor.reconcile.before")
        await self._reconcile_store()
        racepoints.reach("supervisor.reconcile.adopted")
        await self._reconcile_host()
        racepoints.reach("supervisor.reconcile.after")

    async def keep(self) -> None:
        """One pass after the other, for ever."""
        while True:
            await asyncio.sleep(EVERY)
            try:
                await self.begin()
            except Exception as error:
                log.error("reconciling failed, and is tried again in %.0f s: %s", EVERY, error, exc_info=_fault(error))

    # The store's side

    async def _reconcile_store(self) -> None:
        after, more = 0, True
        self._open.clear()
        while more:
            page = await self._store.change("open", after=after, host=self._dispatch.owner)
            jobs = {row["id"]: row for row in page["jobs"]}
            for attempt in page["attempts"]:
                self._open.add(AttemptId(self._dispatch.owner, attempt["job"], attempt["attempt"]))
                await self._one(self._attempt(attempt), attempt["job"])
            for row in jobs.values():
                await self._one(self._job(row), row["id"])
                after = row["seq"]
            more = page["more"]
        self._dispatch.scheduler.forget_lost(self._open)

    async def _one(self, work: Coroutine[None, None, None], job: str) -> None:
        try:
            await work
        except Exception as error:
            log.error("job cannot be reconciled: %s", error, extra={"job": job}, exc_info=_fault(error))

    async def _attempt(self, row: Message) -> None:
        if self._dispatch.has(row["job"]):
            return
        found = await self._store.change("job", job=row["job"])
        (now,) = [attempt for attempt in found["attempts"] if attempt["attempt"] == row["attempt"]]
        # It may have come to its end between the two questions.
        if self._dispatch.has(row["job"]) or now["phase"] == Phase.DONE.value:
            return
        job = self._known_job(found["job"], row["attempt"])
        id = AttemptId(self._dispatch.owner, row["job"], row["attempt"])
        since = clock.monotonic_of(now["started_at"])
        active = Active(job, id, since, Phase(now["phase"]))
        state = JobState(found["job"]["state"])
        if state is not JobState.RUNNING:
            active.outcome = endings.known(found["job"], now)
        if state is JobState.ACCEPTED:
            active.again = replace(job, attempt=row["attempt"] + 1, not_before=_not_before(found["job"]))
        racepoints.reach("supervisor.reconcile.adopting")
        if row["pid"] is not None:
            active.begun.set()
        self._dispatch.adopt(active, row["reported"], Backend(row["backend"]))

    async def _job(self, row: Message) -> None:
        # One with an open attempt is that attempt's, also if just that could not be adopted now.
        if self._dispatch.has(row["id"]) or row["id"] in {attempt.job for attempt in self._open}:
            return
        found = (await self._store.change("job", job=row["id"]))["job"]
        if self._dispatch.has(row["id"]) or found["state"] != row["state"]:
            return
        if row["state"] == JobState.RUNNING.value:
            lost = endings.errored(Cause.HOST_LOST, "the job ran, and nothing is known of its attempt")
            await endings.end(self._store, row["id"], row["label"], lost, row["next_attempt"] - 1)
            return
        try:
            # In their order: of two in one concurrency group the newer one stays.
            self._dispatch.add(self._requested(row))
        except RequestError as error:
            # The image map has changed since the job was accepted: its label is gone, or its size.
            await endings.end(self._store, row["id"], row["label"], endings.errored(error.cause, error.why))

    def _requested(self, row: Message) -> Job:
        """The job of a row that waits.  Raises `RequestError` if it has no place here any more."""
        request = jobrequest.validate(row["request"])
        job = self._dispatch.catalogue.job(request, clock.monotonic_of(row["accepted_at"]), row["next_attempt"])
        job.failures = row["counted"]
        job.not_before = _not_before(row)
        return job

    def _known_job(self, row: Message, attempt: int) -> Job:
        """The job of an attempt that is to be followed to its end, whatever the image map says by now."""
        request = jobrequest.validate(row["request"])
        since = clock.monotonic_of(row["accepted_at"])
        failures = row["counted"] - (row["state"] == JobState.RUNNING.value)
        return self._dispatch.catalogue.job_as_it_was(request, row["image"], since, attempt, failures)

    # The host's side

    async def _reconcile_host(self) -> None:
        hypervisor = self._dispatch.hypervisor
        what = order.List(hypervisor, self._dispatch.owner, self._places.jobs)
        answer = await errand(self._forkserver, what, LIST_TIMEOUT)
        if not isinstance(answer, reports.Found):
            why = answer.why if answer else f"it did not answer within {LIST_TIMEOUT:.0f} s"
            remedy = answer.remedy if answer else "see whether libvirtd hangs: `virsh list` must answer"
            raise UsageError(f"the back end {hypervisor.backend} cannot be used", why, remedy)
        found = [id for name in answer.names if (id := AttemptId.parse(name)) is not None]
        left = [id for id in found if id not in self._open and not self._is_followed(id)]
        several = asyncio.Semaphore(CLEANERS)
        await asyncio.gather(*(self._one(self._remove(id, several), id.job) for id in left))

    def _is_followed(self, id: AttemptId) -> bool:
        followed = [active.id for active in self._dispatch.scheduler.active.values()]
        return id in followed or id in self._dispatch.errands

    async def _remove(self, id: AttemptId, several: asyncio.Semaphore) -> None:
        what = order.Clean(self._dispatch.hypervisor, id, self._places.vm(id))
        async with several:
            answer = await errand(self._forkserver, what, CLEAN_TIMEOUT)
        if isinstance(answer, reports.Found):
            log.warning("removed what was left of an attempt", extra={"job": id.job, "attempt": id.attempt})
        else:
            why = answer.why if answer else "the cleaner did not end well"
            log.error("what is left of an attempt cannot be removed: %s", why, extra={"vm": id.name})


def _not_before(row: Message) -> float:
    """When a job may be tried again; a clock that was set back meanwhile does not make that days."""
    if not row["not_before"]:
        return 0.0
    return min(clock.monotonic_at(row["not_before"]), clock.deadline(MAX_RETRY_DELAY))


def _fault(error: Exception) -> Exception | None:
    """What is to be shown with its traceback: a fault of ours."""
    return None if isinstance(error, SolsticeError | OSError) else error
