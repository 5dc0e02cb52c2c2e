"""One attempt as the supervisor lives through it: from its row in the store until the host is free of its VM.

The row exists before the VM does; what a worker reports is stored before the next report is read; and if the worker
dies, a clean-up worker goes over its VM until it is really gone.  Until then the attempt counts against capacity.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from solstice.errors import Cause, SolsticeError
from solstice.host import clock
from solstice.host.places import Places
from solstice.lifecycle import JobState, Phase
from solstice.model import Outcome, VmSpec
from solstice.protocol import order, reports
from solstice.protocol.codec import to_plain
from solstice.supervisor.children import Worker, errand
from solstice.supervisor.forkclient import ForkServer
from solstice.supervisor.jobs import Active
from solstice.supervisor.store import Store

CLEAN_TIMEOUT = 60.0
FIRST_CLEAN_DELAY = 1.0
MAX_CLEAN_DELAY = 60.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """What the scheduler decided for one attempt."""

    vm: VmSpec
    hypervisor: order.Hypervisor
    limits: order.Limits


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
        self.leaving = False
        """The supervisor is about to go: a VM that cannot be removed is left to the sweep of the next start."""

    async def run(self, active: Active, plan: Plan) -> None:
        """The whole attempt; afterwards nothing of it is left on the host."""
        try:
            is_clean, ending = await self._work(active, plan)
        except (OSError, SolsticeError) as error:
            # No descriptor left, a store that refuses: the job must end all the same, and its VM must go.
            log.exception("attempt failed by a fault of the supervisor", extra=_context(active))
            is_clean, ending = False, f"the supervisor failed: {error}"
            if active.worker is not None:
                active.worker.kill()
                await active.worker.end()
        if active.outcome is None:
            crashed = Outcome(JobState.ERRORED, Cause.WORKER_CRASHED, ending)
            # A worker that dies while the host stops costs the job nothing: it goes back as it would have.
            await self._settle(active, active.stopping.outcome if active.stopping else crashed, clock.wall())
        if not is_clean:
            log.warning("worker left its VM behind: %s", ending, extra=_context(active))
            await self._clean(active, plan)
        await self._enter(active, Phase.DONE, clock.wall())

    async def _work(self, active: Active, plan: Plan) -> tuple[bool, str]:
        """Let a worker do it all; whether it left nothing behind, and how it ended."""
        backend = plan.hypervisor.backend.value
        await self._store.change("start", **_key(active), backend=backend, host=self._host, at=clock.wall())
        self._on_change()
        log.info("attempt started", extra=_context(active))
        record = self._places.record(active.id)
        what = order.Run(plan.hypervisor, plan.vm, active.job.request, plan.limits, record)
        active.worker = worker = await Worker.start(self._forkserver, what)
        if active.stopping is not None:
            worker.stop(active.stopping)
        is_clean = False
        async for report, at in worker.reports():
            await self._hear(active, report, at)
            is_clean = is_clean or isinstance(report, reports.Done)
        return is_clean, await worker.end()

    async def _hear(self, active: Active, report: reports.Report, at: float) -> None:
        match report:
            case reports.PhaseEntered(phase):
                await self._enter(active, phase, at)
            case reports.Ended(outcome):
                await self._settle(active, outcome, at)
            case reports.Failed(cause, why):
                log.error("worker could not clean up: %s", why, extra={**_context(active), "cause": cause.value})

    async def _enter(self, active: Active, phase: Phase, at: float) -> None:
        if phase is active.phase:
            return
        await self._store.change("phase", **_key(active), phase=phase.value, at=at)
        active.phase = phase
        log.info("attempt is %s", phase, extra=_context(active))
        self._on_change()

    async def _settle(self, active: Active, outcome: Outcome, at: float) -> None:
        """Store how the attempt ended; only the first outcome counts."""
        if active.outcome is not None:
            return
        if outcome.cause is Cause.HOST_STOPPING and active.stopping is not None:
            outcome = active.stopping.outcome  # the job may have been cancelled since the worker was told to stop
        if outcome.cause is Cause.HOST_STOPPING:
            cause = outcome.cause.value
            await self._store.change(
                "release", **_key(active), cause=cause, detail=outcome.detail, counted=False, at=at
            )
        else:
            await self._store.change("finish", **_key(active), **to_plain(outcome), at=at)
        active.outcome = outcome
        context = {**_context(active), "cause": outcome.cause.value if outcome.cause else "none"}
        log.info("attempt ended: %s", outcome.state, extra={**context, "detail": outcome.detail})
        self._on_change()

    async def _clean(self, active: Active, plan: Plan) -> None:
        await self._enter(active, Phase.CLEANING, clock.wall())
        delay = FIRST_CLEAN_DELAY
        while not await self._cleaned(active, plan):
            if self.leaving:
                return
            await asyncio.sleep(delay)
            delay = min(delay * 2, MAX_CLEAN_DELAY)

    async def _cleaned(self, active: Active, plan: Plan) -> bool:
        what = order.Clean(plan.hypervisor, active.id, plan.vm.directory)
        answer = await errand(self._forkserver, what, CLEAN_TIMEOUT)
        if isinstance(answer, reports.Found):
            return True
        why = answer.why if answer is not None else "the cleaner did not end well"
        log.error("VM not removed yet: %s", why, extra=_context(active))
        return False


def _key(active: Active) -> dict[str, object]:
    return {"job": active.job.id, "attempt": active.id.attempt}


def _context(active: Active) -> dict[str, object]:
    return {"job": active.job.id, "label": active.job.label, "attempt": active.id.attempt}
