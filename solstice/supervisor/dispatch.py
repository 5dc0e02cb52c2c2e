"""What a job needs before it can run, and the plan of its attempt: image, acceleration, a slot.

Holds the scheduler, the images process and the acceleration together: each of them, when something changes, leads to
one pass of the scheduler.  Nothing here knows the broker.
"""

from __future__ import annotations

import asyncio
import logging
import platform
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any

from solstice.config.configuration import Configuration
from solstice.config.settings import Settings
from solstice.errors import InfraError, InternalError, RequestError
from solstice.host import clock, machine
from solstice.host.places import Places
from solstice.images.messages import Candidate, Ready
from solstice.model import AttemptId, Backend, DiskFormat, Image, Outcome, VmSpec
from solstice.protocol import order
from solstice.supervisor import endings, pauses, tasks
from solstice.supervisor.acceleration import Acceleration
from solstice.supervisor.attempt import Attempts, Plan
from solstice.supervisor.boottest import BootTests
from solstice.supervisor.catalogue import catalogue
from solstice.supervisor.forkclient import ForkServer
from solstice.supervisor.images import Images
from solstice.supervisor.jobs import Active, Job
from solstice.supervisor.scheduler import Scheduler
from solstice.supervisor.store import Store

END_TIMEOUT = 5.0

log = logging.getLogger(__name__)


class Dispatch:
    """`on_change` is called after each change that an operator could see, `on_end(job, outcome)` after each end.

    With `wait_for_images` a job whose image failed waits for the image's next try; without, it ends.
    """

    def __init__(
        self,
        configuration: Configuration,
        backend: Backend,
        places: Places,
        store: Store,
        forkserver: ForkServer,
        on_change: Callable[[], None],
    ) -> None:
        self._settings = configuration.settings
        self._places = places
        self._store = store
        self._forkserver = forkserver
        self._on_change = on_change
        self._tasks: set[asyncio.Task[None]] = set()
        self._tests: set[asyncio.Task[None]] = set()
        """Of new versions: no drain and no stop waits for them."""
        self.owner = places.owner()
        self.backend = backend
        self.ending: set[str] = set()
        """The jobs that are neither pending nor active any more, and of which the store does not know that yet."""
        self.wait_for_images = True
        self.on_end: Callable[[str, Outcome], None] = lambda _job, _outcome: None
        self.hypervisor = _hypervisor(self._settings, backend, places)
        self.attempts = Attempts(platform.node(), places, store, forkserver, on_change)
        self.attempts.max_attempts = self._settings.max_attempts
        self.catalogue = catalogue(configuration, machine.look(places.state))
        free_disk = partial(machine.free_disk_mib, places.state)
        self.scheduler = Scheduler(
            self.owner, self.catalogue.limits, free_disk, self._obstacle, self._attempt, on_change
        )
        self.scheduler.requeue = self._try_again
        pauses.restore(self.scheduler.labels, places.paused)
        self.images = Images(self._image_changed, self._image_came)
        cache = self._settings.run_dir / "probe.json"
        self.acceleration = Acceleration(self.hypervisor, cache, places, self.owner, self.scheduler.pump)
        self._boot_tests = BootTests(
            self.owner, places, self.scheduler, forkserver, lambda: self.acceleration.hypervisor
        )

    @property
    def errands(self) -> set[AttemptId]:
        """The VMs that are under way and belong to no job."""
        probing = self.acceleration.probing
        return self._boot_tests.running | ({probing} if probing is not None else set())

    @property
    def forkserver(self) -> ForkServer:
        return self._forkserver

    @property
    def pending_limit(self) -> int:
        return self._settings.pending_limit

    def image_state(self, name: str) -> str:
        """What a person is told of one image."""
        return "not needed" if self.backend is Backend.NOOP else self.images.state(name)

    def start(self) -> None:
        if self.backend is not Backend.NOOP:
            self.images.start()
        self.scheduler.open()

    @property
    def is_idle(self) -> bool:
        """Nothing runs, nothing ends, and what waits is paused."""
        return not self.scheduler.active and not self._tasks and not self.waiting()

    def waiting(self) -> list[Job]:
        """The jobs that wait and are not paused."""
        labels = self.scheduler.labels
        return [job for job in self.scheduler.pending.values() if not labels.is_paused(job.image.name)]

    async def close(self) -> None:
        for test in self._tests:
            test.cancel()
        if self._tests:
            await asyncio.wait(self._tests)
        if self._tasks:  # the end of a job that was cancelled should be stored
            await asyncio.wait(self._tasks, timeout=END_TIMEOUT)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self.images.close()

    # Jobs

    def has(self, job_id: str) -> bool:
        """Somebody here sees to it that this job ends."""
        active = self.scheduler.active.get(job_id)
        is_followed = active is not None and not active.is_lost
        return is_followed or job_id in self.scheduler.pending or job_id in self.ending

    def add(self, job: Job) -> None:
        """A job was accepted: it waits for its turn, and older ones of its concurrency group may have to go for it."""
        if self.has(job.id):
            return  # the store had it already, and a reconcile pass was first
        looked_at = self._look_at(job)
        if looked_at is not None:
            if job.group is not None:
                self._supersede(looked_at)
            self._wait_for(looked_at)

    def _try_again(self, job: Job) -> None:
        newer = self._newer_of_group(job)
        if newer is not None:
            self._begin_end(job, _superseded(newer))
        elif (looked_at := self._look_at(job)) is not None:
            self._wait_for(looked_at)

    def _wait_for(self, job: Job) -> None:
        """Let a job wait for its turn, and its image not for its own."""
        self.images.want(job.image.name)
        self.scheduler.add(job)

    def _newer_of_group(self, job: Job) -> Job | None:
        """A job that came after this one into its concurrency group."""
        if job.group is None:
            return None
        others = [*self.scheduler.pending.values(), *(active.job for active in self.scheduler.active.values())]
        return next((other for other in others if other.group == job.group and other.since > job.since), None)

    def _look_at(self, job: Job) -> Job | None:
        """The job as this configuration has it, which may be another one than when it was stored; None if it ends."""
        try:
            found = self.catalogue.job(job.request, job.since, job.attempt)
        except RequestError as error:
            self._begin_end(job, endings.errored(error.cause, error.why))
            return None
        return replace(found, failures=job.failures, not_before=job.not_before)

    def adopt(self, active: Active, last: int, backend: Backend) -> None:
        """Go on with an attempt that another supervisor began on `backend`, from its report `last` on."""
        self.scheduler.adopt(active, self._adopted(active, last, backend))

    def cancel(self, job_id: str, detail: str) -> bool:
        """End a job, as soon as its guest let what it runs go; False if it is neither pending nor active."""
        outcome = endings.cancelled(detail)
        if job_id in self.scheduler.pending:
            self._end_pending(job_id, outcome)
            return True
        active = self.scheduler.active.get(job_id)
        if active is not None and active.again is not None:
            again, active.again = active.again, None
            self._begin_end(again, outcome)
            return True
        if active is None or active.outcome is not None:
            return False
        log.info("job is being cancelled: %s", detail, extra={"job": job_id, "label": active.job.label})
        active.stop(order.Stop(outcome))
        return True

    def reload(self, configuration: Configuration) -> None:
        """Go on under another image map and other limits; a pending job that has no place under them ends."""
        self.catalogue = catalogue(configuration, machine.look(self._places.state))
        self._settings = configuration.settings
        self.scheduler.limits = self.catalogue.limits
        self.attempts.max_attempts = self._settings.max_attempts
        for job in list(self.scheduler.pending.values()):
            del self.scheduler.pending[job.id]
            self._try_again(job)
        self.images.fetch(configuration.image_map.by_urgency())
        self.scheduler.pump()

    def _supersede(self, newer: Job) -> None:
        detail = _superseded(newer).detail
        for job in list(self.scheduler.pending.values()):
            if job.group == newer.group and job.since < newer.since:
                self.cancel(job.id, detail)
        for active in list(self.scheduler.active.values()):
            is_older = active.job.group == newer.group and active.job.since < newer.since
            # one whose attempt failed waits, although its VM is not gone yet
            if is_older and (newer.request.cancel_in_progress or active.again is not None):
                self.cancel(active.job.id, detail)

    def _obstacle(self, job: Job) -> str | None:
        """Why a job cannot start, labels and capacity apart."""
        for active in self.scheduler.active.values() if job.group is not None else ():
            if active.job.group == job.group:
                return f"job {active.job.id[:8]} of the same concurrency group has not ended"
        if self.backend is Backend.NOOP:
            return None
        if job.image.name not in self.images.ready:
            return f"image {job.image.name} is not ready: {self.images.state(job.image.name)}"
        if self.acceleration.hypervisor is None:
            return "it is being found out whether hardware acceleration works"
        return None

    # Attempts

    async def _attempt(self, active: Active) -> None:
        hypervisor = self.acceleration.hypervisor
        if hypervisor is None:
            raise InternalError("a job was started before it is known how guests run")
        settings = self._settings
        limits = order.Limits(settings.boot_timeout, settings.job_timeout, settings.vm_shutdown_timeout)
        ready = self.images.ready.get(active.job.image.name)
        if ready is None and self.backend is not Backend.NOOP:
            # It was when this was decided.  Nothing has begun, so the job waits as before, and no attempt is counted.
            active.again = active.job
        else:
            digest = ready.digest if ready is not None else ""
            await self.attempts.run(active, Plan(self._vm(active, ready), hypervisor, limits, digest))
        self._tell(active)

    async def _adopted(self, active: Active, last: int, backend: Backend) -> None:
        # the back end of this configuration knows nothing of what another one has
        hypervisor = _hypervisor(self._settings, backend, self._places)
        await self.attempts.adopt(active, hypervisor, last)
        self._tell(active)

    def _tell(self, active: Active) -> None:
        if active.again is not None and active.is_cancelled and active.stopping is not None:
            # somebody was told so while the store was being told of the next attempt
            again, active.again = active.again, None
            self._begin_end(again, active.stopping.outcome)
        elif active.outcome is not None and active.again is None:
            self.on_end(active.job.id, active.outcome)

    def _vm(self, active: Active, ready: Ready | None) -> VmSpec:
        """Without an image, on the noop back end, nothing reads its base."""
        image = active.job.image
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

    # Images

    def _image_changed(self, name: str) -> None:
        if name in self.images.ready:
            image = self.catalogue.image_map.images.get(name)
            if image is not None:
                ready = self.images.ready[name]
                self._spawn(self.acceleration.find_out(self._forkserver, image, ready))
                self._spawn(self._keep(ready))
            self.scheduler.pump()
        elif not self.wait_for_images:
            failed = self.images.failed[name]
            outcome = endings.errored(failed.cause, f"{failed.why} ({failed.remedy})")
            for job in list(self.scheduler.pending.values()):
                if job.image.name == name:
                    self._end_pending(job.id, outcome)

    async def _keep(self, ready: Ready) -> None:
        await self._store.change(
            "image",
            name=ready.image,
            format=ready.format.value,
            path=str(ready.path),
            digest=ready.digest,
            at=clock.wall(),
        )

    def _image_came(self, candidate: Candidate) -> None:
        """A new version is there, which is to boot before it is used."""
        image = self.catalogue.image_map.images.get(candidate.image)
        if image is not None:
            # it may be the first image of this host, and then nothing else can tell
            self._spawn(self.acceleration.find_out(self._forkserver, image, candidate))
            test = tasks.start(self._test(image, candidate), "boot test")
            self._tests.add(test)
            test.add_done_callback(self._tests.discard)

    async def _test(self, image: Image, candidate: Candidate) -> None:
        try:
            verdict = await self._boot_tests.test(image, candidate, self._settings.boot_timeout)
        except InfraError:
            self.images.look_again(image.name)  # if the version is still there, and wanted, it is tested anew
            return
        if verdict is not None:
            self.images.tested(candidate, verdict.ok, verdict.why)

    def _end_pending(self, job_id: str, outcome: Outcome) -> None:
        """End a job that waits: from now on it cannot start, and soon the store knows it."""
        self._begin_end(self.scheduler.pending.pop(job_id), outcome)

    def _begin_end(self, job: Job, outcome: Outcome) -> None:
        self.ending.add(job.id)
        self._spawn(self._end(job, outcome))

    async def _end(self, job: Job, outcome: Outcome) -> None:
        try:
            await endings.end(self._store, job.id, job.label, outcome)
        finally:
            self.ending.discard(job.id)
        self.on_end(job.id, outcome)
        self._on_change()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = tasks.start(work, "dispatch")
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._on_change()


def _hypervisor(settings: Settings, backend: Backend, places: Places) -> order.Hypervisor:
    if backend is Backend.NOOP:
        return order.Hypervisor(backend, uri=str(places.noop))
    return order.Hypervisor(backend, settings.libvirt_uri, settings.libvirt_network, settings.libvirt_domain_type)


def _superseded(newer: Job) -> Outcome:
    return endings.cancelled(f"superseded by job {newer.id} of the same concurrency group")
