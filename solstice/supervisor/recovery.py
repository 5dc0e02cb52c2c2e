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
from solstice.supervisor import endings
from solstice.supervisor.children import errand
from solstice.supervisor.dispatch import Dispatch
from solstice.supervisor.forkclient import ForkServer
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
        log.warning("removed what an earlier run left behind", extra={"vm": name})


async def recover(store: Store, dispatch: Dispatch) -> None:
    """Bring the store's open jobs and attempts to where they can go on from."""
    after, more = 0, True
    while more:
        page = await store.ask("open", after=after)
        for attempt in page["attempts"]:
            await _close(store, attempt)
        for row in page["jobs"]:
            await _resume(store, dispatch, row)
            after = row["seq"]
        more = page["more"]


async def _close(store: Store, attempt: Message) -> None:
    """The sweep has removed the attempt's VM: the attempt is done, whatever phase it was in."""
    key = {"job": attempt["job"], "attempt": attempt["attempt"], "at": clock.wall()}
    if attempt["phase"] != Phase.CLEANING.value:
        await store.change("phase", **key, phase=Phase.CLEANING.value)
    await store.change("phase", **key, phase=Phase.DONE.value)


async def _resume(store: Store, dispatch: Dispatch, row: Message) -> None:
    if row["state"] == JobState.RUNNING.value:
        lost = endings.errored(Cause.HOST_LOST, "the supervisor ended while the job ran")
        await endings.end(store, row["id"], row["label"], lost, row["next_attempt"] - 1)
        return
    try:
        request = jobrequest.validate(row["request"])
        job = dispatch.catalogue.job(request, clock.monotonic_of(row["accepted_at"]), row["next_attempt"])
    except RequestError as error:
        # The image map has changed since the job was accepted: its label is gone, or its size.
        await endings.end(store, row["id"], row["label"], endings.errored(error.cause, error.why))
        return
    # In their order: of two in one concurrency group the newer one stays.
    dispatch.add(job)
