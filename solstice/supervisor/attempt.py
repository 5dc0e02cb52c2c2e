"""One attempt as the supervisor lives through it: from its row in the store until the host is free of its VM.

The row exists before the VM does; what a worker reports is stored, with its number, before the next report is read;
and if the worker dies, a clean-up worker goes over its VM until it is really gone.  Until then the attempt counts
against capacity.  An attempt that an earlier supervisor began is lived through in the same way, from the last number
that the store has.

An attempt that fails by the host's fault is followed by another, as often as MAX_ATTEMPTS allows; every other end is
the job's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from solstice.errors import Cause, Side, SolsticeError
from solstice.host import clock, journal, racepoints
from solstice.host.places import Places
from solstice.lifecycle import JobState, Phase
from solstice.model import Outcome, VmSpec
from solstice.protocol import attach, order, reports
from solstice.protocol.codec import to_plain
from solstice.supervisor.children import Heard, Worker, errand
from solstice.supervisor.forkclient import ForkServer
from solstice.supervisor.jobs import Active
from solstice.supervisor.store import Store

CLEAN_TIMEOUT = racepoints.sooner(60.0)
FIRST_CLEAN_DELAY = 1.0
MAX_CLEAN_DELAY = 60.0
FIRST_RETRY_DELAY = racepoints.sooner(5.0)
MAX_RETRY_DELAY = 300.0
# For how long a worker may say nothing, not even that it is alive: the longest single call to a hypervisor or to
# qemu-img that a phase has.  Where it only waits it says so every few seconds.
PATIENCE = {
    Phase.PREPARING: 120.0,
    Phase.BOOTING: 120.0,
    Phase.RUNNING: 60.0,
    Phase.COLLECTING: 60.0,
    Phase.HELD: 60.0,
    Phase.CLEANING: 120.0,
    Phase.DONE: 60.0,
}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """What the scheduler decided for one attempt; `image_digest` is that of `vm.base`, "" if there is none."""

    vm: VmSpec
    hypervisor: order.Hypervisor
    limits: order.Limits
    image_digest: str = ""


class Attempts:
    """Runs attempts; `on_change` is called after each stored change of state."""

    def __init__(
        self, host: str, places: Places, store: Store, forkserver: ForkServer, on_change: Callable[[], None]
    ) -> None:
        self._host = host
        self._places = places
        self._store = store
        self._forkserver = forkserver
        self._on_change = on_change
        self.max_attempts = 1
        self.leaving = False
        """The supervisor is about to go: a VM that cannot be removed is left to the next start."""

    async def run(self, active: Active, plan: Plan) -> None:
        """The whole attempt; afterwards nothing of it is left on the host."""
        try:
            ending = await self._work(active, plan)
        except (OSError, SolsticeError) as error:
            ending = await self._give_up(active, error)
        await self._close(active, plan.hypervisor, ending)

    async def adopt(self, active: Active, hypervisor: order.Hypervisor, last: int) -> None:
        """The rest of an attempt that an earlier supervisor began, of which the store has the reports up to `last`."""
        log.info("adopting an attempt", extra={**_context(active), "after": last})
        active.begun.set()
        try:
            active.worker = Worker.adopt(self._places.record(active.id), last)
            ending = await self._follow(active, active.worker)
        except (OSError, SolsticeError) as error:
            ending = await self._give_up(active, error)
        await self._close(active, hypervisor, ending)

    async def _work(self, active: Active, plan: Plan) -> str:
        """Let a worker do it all; how it ended, "" if it left nothing behind."""
        backend = plan.hypervisor.backend.value
        racepoints.reach("supervisor.start.before")
        chosen = {"backend": backend, "host": self._host, "image_digest": plan.image_digest or None}
        await self._store.change("start", **_key(active), **chosen, at=clock.wall())
        racepoints.reach("supervisor.start.stored")
        self._on_change()
        log.info("attempt started", extra=_context(active))
        record = self._places.record(active.id)
        what = order.Run(plan.hypervisor, plan.vm, active.job.request, plan.limits, record)
        active.worker = worker = await Worker.start(self._forkserver, what)
        racepoints.reach("supervisor.start.asked")
        if active.stopping is not None:
            worker.stop(active.stopping)
        return await self._follow(active, worker)

    async def _follow(self, active: Active, worker: Worker) -> str:
        is_clean = False
        async for heard in worker.reports(lambda: racepoints.sooner(PATIENCE[active.phase])):
            point = f"supervisor.{_word(heard.report)}"
            racepoints.reach(f"{point}.heard")
            await self._hear(active, heard)
            racepoints.reach(f"{point}.stored")
            is_clean = is_clean or isinstance(heard.report, reports.Done)
        ending = await worker.end()
        return "" if is_clean else ending

    async def _give_up(self, active: Active, error: Exception) -> str:
        """No descriptor left, a store that refuses: the job must end all the same, and its VM must go."""
        log.error("attempt failed by a fault of the supervisor", extra=_context(active), exc_info=error)
        if active.worker is not None:
            active.worker.kill()
            await active.worker.end()
        return f"the supervisor failed: {error}"

    async def _close(self, active: Active, hypervisor: order.Hypervisor, ending: str) -> None:
        if active.outcome is None:
            crashed = Outcome(
                JobState.ERRORED, _cause(active.worker), ending or "it ended without a word about the job"
            )
            racepoints.reach("supervisor.crash.before")
            # A worker that dies while the host stops costs the job nothing: it goes back as it would have.
            await self._settle(active, active.stopping.outcome if active.stopping else crashed, clock.wall())
        if ending:
            log.warning("worker left its VM behind: %s", ending, extra=_context(active))
            racepoints.reach("supervisor.crash.stored")
            await self._clean(active, hypervisor)
            racepoints.reach("supervisor.crash.cleaned")
            if self.leaving:
                return
        racepoints.reach("supervisor.close.before")
        await self._enter(active, Phase.DONE, clock.wall())
        racepoints.reach("supervisor.close.stored")
        # The store has it all by now.
        record = self._places.record(active.id)
        try:
            journal.put_away(record / attach.JOURNAL)
            (record / attach.SOCKET).unlink(missing_ok=True)
        except OSError as error:  # the next reconcile pass finds it
            log.error("journal not removed yet: %s", error, extra=_context(active))
        racepoints.reach("supervisor.close.removed")

    async def _hear(self, active: Active, heard: Heard) -> None:
        match heard.report:
            case reports.Identity(pid=pid, started=started):
                await self._store.change("worker", **_key(active), pid=pid, started=started)
                active.begun.set()
            case reports.PhaseEntered(phase, guest_at):
                await self._enter(active, phase, heard.at, heard.number, guest_at)
            case reports.Step(guest_at=guest_at) as step:
                what = {"number": heard.number, "kind": reports.kind_of(step), "report": to_plain(step)}
                await self._store.change("report", **_key(active), **what, at=heard.at, guest_at=guest_at)
            case reports.Ended(outcome):
                await self._settle(active, outcome, heard.at, heard.number)
            case reports.Failed(cause, why):
                log.error("worker could not clean up: %s", why, extra={**_context(active), "cause": cause.value})

    async def _enter(
        self, active: Active, phase: Phase, at: float, number: int | None = None, guest_at: int | None = None
    ) -> None:
        if phase is active.phase:
            return
        stored = {**_key(active), **_numbered(number), "guest_at": guest_at}
        await self._store.change("phase", **stored, phase=phase.value, at=at)
        active.phase = phase
        log.info("attempt is %s", phase, extra=_context(active))
        self._on_change()

    async def _settle(self, active: Active, outcome: Outcome, at: float, number: int | None = None) -> None:
        """Store how the attempt ended; only the first outcome counts."""
        if active.outcome is not None:
            return
        if outcome.cause is Cause.HOST_STOPPING and active.stopping is not None:
            outcome = active.stopping.outcome  # the job may have been cancelled since the worker was told to stop
        if active.is_cancelled and outcome.state is JobState.ERRORED and active.stopping is not None:
            outcome = active.stopping.outcome  # what was promised to be cancelled is not tried again
        cause = outcome.cause.value if outcome.cause else "none"
        stored = {**_key(active), "at": at, **_numbered(number)}
        if self._is_retried(active, outcome):
            delay = min(FIRST_RETRY_DELAY * 2**active.job.failures, MAX_RETRY_DELAY)
            counted = outcome.cause is not Cause.HOST_STOPPING
            not_before = clock.wall() + delay if counted else None
            again = active.job.after_failure(active.id.attempt, delay) if counted else active.job.after_stop()
            await self._store.change(
                "release", **stored, cause=cause, detail=outcome.detail, counted=counted, not_before=not_before
            )
            active.again = again
        else:
            await self._store.change("finish", **stored, **to_plain(outcome))
        active.outcome = outcome
        context = {**_context(active), "cause": cause, "detail": outcome.detail}
        if active.again is not None:
            context["next"] = f"attempt {active.again.attempt}"
        log.info("attempt ended: %s", outcome.state, extra=context)
        self._on_change()

    def _is_retried(self, active: Active, outcome: Outcome) -> bool:
        if outcome.cause is Cause.HOST_STOPPING:
            return True
        is_ours = outcome.state is JobState.ERRORED and outcome.cause is not None and outcome.cause.side is Side.INFRA
        return is_ours and active.job.failures + 1 < self.max_attempts

    async def _clean(self, active: Active, hypervisor: order.Hypervisor) -> None:
        await self._enter(active, Phase.CLEANING, clock.wall())
        delay = FIRST_CLEAN_DELAY
        while not await self._cleaned(active, hypervisor):
            if self.leaving:
                return
            await asyncio.sleep(delay)
            delay = min(delay * 2, MAX_CLEAN_DELAY)

    async def _cleaned(self, active: Active, hypervisor: order.Hypervisor) -> bool:
        what = order.Clean(hypervisor, active.id, self._places.vm(active.id))
        try:
            answer = await errand(self._forkserver, what, CLEAN_TIMEOUT)
        except OSError as error:  # no descriptor left: there will be one again
            answer = reports.Failed(Cause.HYPERVISOR, str(error))
        if isinstance(answer, reports.Found):
            return True
        why = answer.why if answer is not None else "the cleaner did not end well"
        log.error("VM not removed yet: %s", why, extra=_context(active))
        return False


def _key(active: Active) -> dict[str, object]:
    return {"job": active.job.id, "attempt": active.id.attempt}


def _word(said: reports.Said) -> str:
    """What the race points call it."""
    return "unknown" if isinstance(said, reports.Alive | reports.Unknown) else reports.kind_of(said)


def _context(active: Active) -> dict[str, object]:
    return {"job": active.job.id, "label": active.job.label, "attempt": active.id.attempt}


def _cause(worker: Worker | None) -> Cause:
    """What the end of a worker without an outcome means."""
    if worker is not None and worker.hangs:
        return Cause.WORKER_HUNG
    if worker is not None and worker.was_lost:
        return Cause.HOST_LOST
    return Cause.WORKER_CRASHED


def _numbered(number: int | None) -> dict[str, int]:
    """What the supervisor decided by itself has no number of a report."""
    return {} if number is None else {"number": number}
