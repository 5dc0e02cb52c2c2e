"""Decides whether guests run on hardware acceleration or in plain emulation, before the first of them starts.

`kvm` and `qemu` are taken as they are set.  `auto` is found out by a worker that boots the first ready image
(worker/probe.py), once for a boot of the host and a version of QEMU: the answer is kept in a file of the run
directory.  Jobs wait meanwhile, and none of them pays with an attempt.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from solstice.errors import Cause, InternalError
from solstice.host.places import Places
from solstice.images.messages import Candidate, Ready
from solstice.model import AttemptId, Backend, DomainType, Image, VmSpec
from solstice.protocol import order, reports
from solstice.protocol.codec import from_plain, to_plain
from solstice.supervisor.children import errand
from solstice.supervisor.forkclient import ForkServer

ERRAND_TIMEOUT = 120.0

log = logging.getLogger(__name__)


class Acceleration:
    """`hypervisor` is what orders are given with; None until it is known.  `on_known` is called when it is."""

    def __init__(
        self, wanted: order.Hypervisor, cache: Path, places: Places, owner: str, on_known: Callable[[], None]
    ) -> None:
        self._wanted = wanted
        self._cache = cache
        self._places = places
        self._owner = owner
        self._on_known = on_known
        self._begun = False
        self.probing: AttemptId | None = None
        """The VM of a probe that is under way."""
        is_open = wanted.backend is Backend.LIBVIRT and wanted.domain_type is DomainType.AUTO
        self.hypervisor: order.Hypervisor | None = None if is_open else wanted

    async def find_out(self, forkserver: ForkServer, image: Image, ready: Ready | Candidate) -> None:
        """Probe with this image, unless the answer is known or under way."""
        if self.hypervisor is not None or self._begun:
            return
        self._begun = True
        self.probing = id = AttemptId(self._owner, str(uuid.uuid4()), 0)
        vm = VmSpec(
            id=id,
            label=image.name,
            base=ready.path,
            base_format=ready.format,
            directory=self._places.vm(id),
            resources=image.resources,
            seed_bus=image.seed_bus,
            nocloud=image.nocloud,
        )
        log.info("finding out whether hardware acceleration works", extra={"image": image.name})
        try:
            answer = await errand(forkserver, order.Probe(self._wanted, vm, self._known()), ERRAND_TIMEOUT)
        except OSError as error:  # no descriptor left
            answer = reports.Failed(Cause.HYPERVISOR, str(error))
        self.probing = None
        self._conclude(answer)

    def _conclude(self, answer: reports.Found | reports.Failed | None) -> None:
        if isinstance(answer, reports.Found) and answer.probe is not None:
            found = answer.probe
            self._remember(found)
        else:
            # Emulation always works; the next start asks again, because nothing is remembered.
            why = answer.why if isinstance(answer, reports.Failed) else "the probe did not end well"
            found = order.ProbeResult(DomainType.QEMU, "", 0, why)
        log.info("guests run with domain type %s: %s", found.domain_type, found.reason)
        self.hypervisor = replace(self._wanted, domain_type=found.domain_type)
        self._on_known()

    def _known(self) -> order.ProbeResult | None:
        try:
            return from_plain(order.ProbeResult, json.loads(self._cache.read_bytes()))
        except (OSError, ValueError, InternalError):
            return None

    def _remember(self, found: order.ProbeResult) -> None:
        try:
            self._cache.parent.mkdir(parents=True, exist_ok=True)
            self._cache.write_text(json.dumps(to_plain(found)))
        except OSError as error:
            log.info("the probe's answer cannot be kept: %s", error)
