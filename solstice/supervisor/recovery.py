"""What a start does about the last end, however that came.

`sweep` has a worker remove every VM of this owner: a worker that lost its supervisor ends its VM by itself, but may
not have come to it (power cut, SIGKILL).  `recover` reads the jobs that have not ended: what was pending is pending
again; what ran when the last supervisor died has lost its VM, and ends.  Called before anything new is accepted.
"""

from __future__ import annotations

import logging

from solstice.errors import Cause, RequestError, UsageError
from solstice.host import clock
from solstice.host.places import Places
from solstice.lifecycle import JobState, Phase
from solstice.protocol import jobrequest, order, reports
from solstice.protocol.lines import Message
from solstice.supervisor.children import errand
from solstice.supervisor.forkclient import ForkServer
from solstice.supervisor.intake import Intake
from solstice.supervisor.scheduler import Scheduler
from solstice.supervisor.store import Store

SWEEP_TIMEOUT = 120.0

log = logging.getLogger(__name__)


async def sweep(forkserver: ForkServer, hypervisor: order.Hypervisor, owner: str, places: Places) -> None:
    """Let nothing of an earlier run be left at the hypervisor.  Raises `UsageError` if that does not answer."""
    answer = await errand(forkserver, order.Sweep(hypervisor, owner, places.jobs), SWEEP_TIMEOUT)
    if not isinstance(answer, reports.Found):
        why = answer.why if answer else f"it did not answer within {SWEEP_TIMEOUT:.0f} s"
        remedy = answer.remedy if answer else "see whether libvirtd hangs: `virsh list` must answer"
        raise UsageError(f"the back end {hypervisor.backend} cannot be used", why, remedy)
    for name in answer.removed:
        log.warning("removed what an earlier run left behind", extra={"name": name})


async def recover(store: Store, intake: Intake, scheduler: Scheduler) -> None:
    """Bring the store's open jobs and attempts to where they can go on from."""
    after, more = 0, True
    while more:
        page = await store.ask("open", after=after)
        for attempt in page["attempts"]:
            await _close(store, attempt)
        for row in page["jobs"]:
            await _resume(store, intake, scheduler, row)
            after = row["seq"]
        more = page["more"]


async def _close(store: Store, attempt: Message) -> None:
    """The sweep has removed the attempt's VM: the attempt is done, whatever phase it was in."""
    key = {"job": attempt["job"], "attempt": attempt["attempt"], "at": clock.wall()}
    if attempt["phase"] != Phase.CLEANING.value:
        await store.change("phase", **key, phase=Phase.CLEANING.value)
    await store.change("phase", **key, phase=Phase.DONE.value)


async def _resume(store: Store, intake: Intake, scheduler: Scheduler, row: Message) -> None:
    if row["state"] == JobState.RUNNING.value:
        await _end(store, row, Cause.HOST_LOST, "the supervisor ended while the job ran")
        return
    try:
        job = intake.job(jobrequest.validate(row["request"]), row["next_attempt"])
    except RequestError as error:
        # The image map has changed since the job was accepted, and its label is gone.
        await _end(store, row, error.cause, error.why)
        return
    scheduler.pending[job.id] = job


async def _end(store: Store, row: Message, cause: Cause, detail: str) -> None:
    attempt = row["next_attempt"] - 1 if row["state"] == JobState.RUNNING.value else 0
    log.warning("job ends: %s", detail, extra={"job": row["id"], "cause": cause.value})
    await store.change(
        "finish",
        job=row["id"],
        attempt=attempt,
        state=JobState.ERRORED.value,
        cause=cause.value,
        detail=detail,
        at=clock.wall(),
    )
