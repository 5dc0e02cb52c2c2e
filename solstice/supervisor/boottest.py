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
            return await self._boot(image, candidate, id, timeout)
        finally:
            del self._running[candidate.path], self._scheduler.errands[id]
            self._scheduler.pump()

    async def _boot(self, image: Image, candidate: Candidate, id: AttemptId, timeout: float) -> Verdict:
        while (hypervisor := self._hypervisor()) is None or self._scheduler.is_short_for(id):
            await asyncio.sleep(LOOK_AGAIN)
        vm = VmSpec(
            id=id,
            label=image.name,
            base=candidate.path,
            base_format=candidate.format,
            directory=self._places.vm(id),
            resources=image.resources,
            seed_bus=image.seed_bus,
            nocloud=image.nocloud,
        )
        log.info("testing whether a new version boots", extra={"image": image.name, "path": str(candidate.path)})
        answer = await errand(self._forkserver, order.BootTest(hypervisor, vm, timeout), timeout + MARGIN)
        verdict = _verdict(answer)
        log.log(
            logging.INFO if verdict.ok else logging.ERROR,
            "the new version %s",
            "boots" if verdict.ok else f"does not boot: {verdict.why}",
            extra={"image": image.name, "path": str(candidate.path)},
        )
        return verdict


def _verdict(answer: reports.Found | reports.Failed | None) -> Verdict:
    if isinstance(answer, reports.Found):
        return Verdict(True)
    return Verdict(False, answer.why if answer is not None else "the test did not end well; see the supervisor's log")
