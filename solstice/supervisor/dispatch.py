"""What a job needs before it can run, and the plan of its attempt: image, acceleration, a slot.

Holds the scheduler, the images process and the acceleration together: each of them, when something changes, leads to
one pass of the scheduler.  Nothing here knows the broker.
"""

from __future__ import annotations

import asyncio
import logging
import platform
from collections.abc import Callable, Coroutine
from typing import Any

from solstice.config.imagemap import ImageMap
from solstice.config.settings import Settings
from solstice.errors import Cause
from solstice.host import clock
from solstice.host.places import Places
from solstice.lifecycle import JobState
from solstice.model import Backend, DiskFormat, Outcome, VmSpec
from solstice.protocol import order
from solstice.supervisor import tasks
from solstice.supervisor.acceleration import Acceleration
from solstice.supervisor.attempt import Attempts, Plan
from solstice.supervisor.capacity import Capacity
from solstice.supervisor.forkclient import ForkServer
from solstice.supervisor.images import Images
from solstice.supervisor.jobs import Active, Job
from solstice.supervisor.scheduler import Scheduler
from solstice.supervisor.store import Store

log = logging.getLogger(__name__)


class Dispatch:
    """`on_change` is called after each change that an operator could see, `on_end(job, outcome)` after each attempt.

    With `wait_for_images` a job whose image failed waits for the image's next try; without, it ends.
    """

    def __init__(
        self,
        settings: Settings,
        image_map: ImageMap,
        backend: Backend,
        places: Places,
        store: Store,
        forkserver: ForkServer,
        on_change: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._map = image_map
        self._places = places
        self._store = store
        self._forkserver = forkserver
        self._on_change = on_change
        self._tasks: set[asyncio.Task[None]] = set()
        self.owner = places.owner()
        self.backend = backend
        self.wait_for_images = True
        self.on_end: Callable[[str, Outcome], None] = lambda _job, _outcome: None
        self.hypervisor = _hypervisor(settings, backend, places)
        self.attempts = Attempts(platform.node(), places, store, forkserver, on_change)
        capacity = Capacity(settings.max_concurrency, self._per_image())
        self.scheduler = Scheduler(self.owner, capacity, self.obstacle, self._attempt, on_change)
        self.images = Images(self._image_changed)
        cache = settings.run_dir / "probe.json"
        self.acceleration = Acceleration(self.hypervisor, cache, places, self.owner, self.scheduler.pump)

    @property
    def image_names(self) -> list[str]:
        return sorted(self._map.images)

    def start(self) -> None:
        if self.backend is not Backend.NOOP:
            self.images.start()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self.images.close()

    def obstacle(self, job: Job) -> str | None:
        """Why a job cannot start, capacity apart."""
        if self.backend is Backend.NOOP:
            return None
        if job.image.name not in self.images.ready:
            return f"image {job.image.name} is not ready: {self.images.state(job.image.name)}"
        if self.acceleration.hypervisor is None:
            return "it is being found out whether hardware acceleration works"
        return None

    async def _attempt(self, active: Active) -> None:
        hypervisor = self.acceleration.hypervisor
        assert hypervisor is not None  # noqa: S101 - obstacle() said so
        settings = self._settings
        limits = order.Limits(settings.boot_timeout, settings.job_timeout, settings.vm_shutdown_timeout)
        await self.attempts.run(active, Plan(self._vm(active), hypervisor, limits))
        if active.outcome is not None:
            self.on_end(active.job.id, active.outcome)

    def _vm(self, active: Active) -> VmSpec:
        image, ready = active.job.image, self.images.ready.get(active.job.image.name)
        return VmSpec(
            id=active.id,
            label=active.job.label,
            base=ready.path if ready else image.local_path,
            base_format=ready.format if ready else DiskFormat.RAW,
            directory=self._places.vm(active.id),
            resources=active.job.resources,
            seed_bus=image.seed_bus,
            nocloud=image.nocloud,
        )

    def _image_changed(self, name: str) -> None:
        if name in self.images.ready:
            self._spawn(self.acceleration.find_out(self._forkserver, self._map.images[name], self.images.ready[name]))
            self.scheduler.pump()
        elif not self.wait_for_images:
            self._spawn(self._give_up(name))

    async def _give_up(self, name: str) -> None:
        """End the jobs that wait for an image that failed."""
        failed = self.images.failed[name]
        outcome = Outcome(JobState.ERRORED, failed.cause, f"{failed.why} ({failed.remedy})")
        for job in [job for job in self.scheduler.pending.values() if job.image.name == name]:
            # It may have left while another one's end was stored.
            if self.scheduler.pending.pop(job.id, None) is None:
                continue
            await self._store.change(
                "finish",
                job=job.id,
                state=outcome.state.value,
                cause=failed.cause.value,
                detail=outcome.detail,
                at=clock.wall(),
            )
            self.on_end(job.id, outcome)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = tasks.start(work, "dispatch")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _per_image(self) -> dict[str, int]:
        """CAPACITY_MAP by image: an alias counts for what it resolves to, and of two figures the smaller holds."""
        limits: dict[str, int] = {}
        for label, limit in self._settings.capacity_map.items():
            image = self._map.resolve(label)
            if image is None:
                log.debug("CAPACITY_MAP names a label that the image map does not have", extra={"label": label})
            else:
                limits[image.name] = min(limit, limits.get(image.name, limit))
        return limits


def _hypervisor(settings: Settings, backend: Backend, places: Places) -> order.Hypervisor:
    if backend is Backend.NOOP:
        return order.Hypervisor(backend, uri=str(places.noop))
    return order.Hypervisor(backend, settings.libvirt_uri, settings.libvirt_network, settings.libvirt_domain_type)


def stopping(hurry: bool) -> order.Stop:
    """What an attempt is told when its host stops: its job goes back and runs at the next start."""
    return order.Stop(Outcome(JobState.ERRORED, Cause.HOST_STOPPING, "the supervisor was asked to stop"), hurry)
