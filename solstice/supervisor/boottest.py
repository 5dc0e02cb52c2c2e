"""Boots each new version of an image once, to its runner's hello, before it is used (`boot_test` in the image map).

The VM is made by a worker with an errand (worker/probe.py).  It counts against capacity like a job's: from when it is
wanted no job takes its room, and it starts as soon as there is room for it.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from solstice.errors import Cause, InfraError
from solstice.host.places import Places
from solstice.images.messages import Candidate
from solstice.model import AttemptId, Image, VmSpec
from solstice.protocol import order, reports
from solstice.supervisor.capacity import Claim
from solstice.supervisor.children import errand
from solstice.supervisor.forkclient import ForkServer
from solstice.supervisor.scheduler import Scheduler

LOOK_AGAIN = 1.0
# What the worker needs beside the boot itself.
MARGIN = 60.0
CLEAN_TIMEOUT = 60.0
RETRY_DELAY = 60.0
TRIES = 10

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Verdict:
    ok: bool
    why: str = ""


class BootTests:
    """`hypervisor` gives what orders are given with, None while that is not known."""

    def __init__(
        self,
        owner: str,
        places: Places,
        scheduler: Scheduler,
        forkserver: ForkServer,
        hypervisor: Callable[[], order.Hypervisor | None],
    ) -> None:
        self._owner = owner
        self._places = places
        self._scheduler = scheduler
        self._forkserver = forkserver
        self._hypervisor = hypervisor
        self._testing: set[Path] = set()
        self._running: set[AttemptId] = set()

    @property
    def running(self) -> set[AttemptId]:
        """The VMs of the tests that are under way."""
        return set(self._running)

    async def test(self, image: Image, candidate: Candidate, timeout: float) -> Verdict | None:
        """Whether a VM of this version says hello within `timeout` seconds; None if it is being tested already.

        Raises `InfraError` if this host failed `TRIES` times to find it out.
        """
        if candidate.path in self._testing:
            return None
        self._testing.add(candidate.path)
        try:
            return await self._verdict(image, candidate, timeout)
        finally:
            self._testing.discard(candidate.path)

    async def _verdict(self, image: Image, candidate: Candidate, timeout: float) -> Verdict:
        """Try until that says something about the image.  Between two tries nothing is claimed."""
        extra = {"image": image.name, "path": str(candidate.path)}
        tries = 0
        while True:
            tries += 1
            answer = await self._try(image, candidate, timeout)
            if isinstance(answer, Verdict):
                if answer.ok:
                    log.info("the new version boots", extra=extra)
                else:
                    log.error("the new version does not boot: %s", answer.why, extra=extra)
                return answer
            if tries >= TRIES:
                text = "a new version could not be tested in %d tries, nothing is known of it: %s"
                log.error(text, tries, answer.why, extra=extra)
                raise answer
            text = "a new version cannot be tested now, trying again in %.0f s: %s"
            log.error(text, RETRY_DELAY, answer.why, extra=extra)
            await asyncio.sleep(RETRY_DELAY)

    async def _try(self, image: Image, candidate: Candidate, timeout: float) -> Verdict | InfraError:
        """Claim room, wait for it, and boot once, as a VM of its own: what an earlier try left has another name."""
        id = AttemptId(self._owner, str(uuid.uuid4()), 0)
        self._running.add(id)
        self._scheduler.errands[id] = Claim(image.name, image.resources)
        try:
            while (hypervisor := self._hypervisor()) is None or self._scheduler.is_short_for(id):
                if (why := self._scheduler.limits.impossible(image.resources)) is not None:
                    return Verdict(False, f"it does not fit: {why}")
                await asyncio.sleep(LOOK_AGAIN)
            extra = {"image": image.name, "path": str(candidate.path), "vm": id.name}
            log.info("testing whether a new version boots", extra=extra)
            return judged(await self._boot(hypervisor, self._vm(image, candidate, id), timeout))
        except OSError as error:  # no descriptor left
            return InfraError(Cause.HYPERVISOR, str(error))
        finally:
            self._running.discard(id)
            del self._scheduler.errands[id]
            self._scheduler.pump()

    def _vm(self, image: Image, candidate: Candidate, id: AttemptId) -> VmSpec:
        return VmSpec(
            id=id,
            label=image.name,
            base=candidate.path,
            base_format=candidate.format,
            directory=self._places.vm(id),
            resources=image.resources,
            seed_bus=image.seed_bus,
            nocloud=image.nocloud,
        )

    async def _boot(
        self, hypervisor: order.Hypervisor, vm: VmSpec, timeout: float
    ) -> reports.Found | reports.Failed | None:
        answer = None
        try:
            answer = await errand(self._forkserver, order.BootTest(hypervisor, vm, timeout), timeout + MARGIN)
        finally:
            if not isinstance(answer, reports.Found):  # its worker failed or was killed, wherever it was just then
                await errand(self._forkserver, order.Clean(hypervisor, vm.id, vm.directory), CLEAN_TIMEOUT)
        return answer


def judged(answer: reports.Found | reports.Failed | None) -> Verdict | InfraError:
    """What the end of a try says about the image; an error says nothing about it: the host failed."""
    if isinstance(answer, reports.Found):
        return Verdict(True)
    if answer is None:
        return InfraError(Cause.WORKER_CRASHED, "the test did not end well")
    # An image that cannot be opened and a VM that is lost are as often the host's fault, and a refusal is for good.
    if answer.cause is Cause.BOOT_TIMEOUT:
        return Verdict(False, answer.why)
    return InfraError(answer.cause, answer.why, answer.remedy)
