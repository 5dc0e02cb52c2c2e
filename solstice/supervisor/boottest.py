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

from solstice.errors import Cause
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
# Any other cause of a failure says nothing about the image.
_OF_THE_IMAGE = (Cause.BOOT_TIMEOUT, Cause.IMAGE, Cause.VM_LOST)

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
        self._running: dict[Path, AttemptId] = {}

    @property
    def running(self) -> set[AttemptId]:
        """The VMs of the tests that are under way."""
        return set(self._running.values())

    async def test(self, image: Image, candidate: Candidate, timeout: float) -> Verdict | None:
        """Whether a VM of this version says hello within `timeout` seconds; None if it is being tested already."""
        if candidate.path in self._running:
            return None
        id = AttemptId(self._owner, str(uuid.uuid4()), 0)
        self._running[candidate.path] = id
        claim = Claim(image.name, image.resources)
        self._scheduler.errands[id] = claim
        try:
            return await self._verdict(image, candidate, id, timeout)
        finally:
            del self._running[candidate.path], self._scheduler.errands[id]
            self._scheduler.pump()

    async def _verdict(self, image: Image, candidate: Candidate, id: AttemptId, timeout: float) -> Verdict:
        """Boot until that says something about the image; where the host itself is at fault, again and again."""
        extra = {"image": image.name, "path": str(candidate.path)}
        while True:
            while (hypervisor := self._hypervisor()) is None or self._scheduler.is_short_for(id):
                await asyncio.sleep(LOOK_AGAIN)
            log.info("testing whether a new version boots", extra=extra)
            answer = await self._boot(hypervisor, self._vm(image, candidate, id), timeout)
            if isinstance(answer, reports.Found):
                log.info("the new version boots", extra=extra)
                return Verdict(True)
            if answer is not None and answer.cause in _OF_THE_IMAGE:
                log.error("the new version does not boot: %s", answer.why, extra=extra)
                return Verdict(False, answer.why)
            why = answer.why if answer is not None else "the test did not end well"
            log.error("a new version cannot be tested now, trying again in %.0f s: %s", RETRY_DELAY, why, extra=extra)
            await asyncio.sleep(RETRY_DELAY)

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
            if answer is None:  # its worker was killed, by us if the host is being stopped
                await errand(self._forkserver, order.Clean(hypervisor, vm.id, vm.directory), CLEAN_TIMEOUT)
        return answer
