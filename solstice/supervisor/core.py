"""The supervisor as a whole: puts the parts together, starts them in order, and stops them in the reverse order.

It belongs to one state directory, whose lock it holds.  `serve` and `run_one` return when it was asked to stop and
nothing of it is left running; what did not end by then stands in the store for the next start.  Signals are the
caller's, who calls `stop`, `hurry`, `drain` and `reload`; all of them may come at any time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import platform
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from setproctitle import setproctitle

from solstice.config.configuration import Configuration
from solstice.errors import SolsticeError, UsageError
from solstice.host import clock
from solstice.host.places import Places
from solstice.host.service import Notifier
from solstice.model import Backend, JobRequest, Outcome
from solstice.supervisor import tasks
from solstice.supervisor.dispatch import Dispatch
from solstice.supervisor.doors import Doors
from solstice.supervisor.forkclient import ForkServer
from solstice.supervisor.intake import Intake
from solstice.supervisor.reconcile import Reconcile
from solstice.supervisor.stopping import Stopping
from solstice.supervisor.store import Store

INTAKE_TIMEOUT = 5.0
# For a worker that was asked for just now: before its first word it cannot be adopted, and costs its job an attempt.
BEGIN_TIMEOUT = 5.0

log = logging.getLogger(__name__)


class Interrupted(Exception):
    """It was asked to stop before it took jobs; nothing of it is left running."""


class Supervisor:
    """`read` gives the configuration anew for a reload; `notifier` is the service manager's ear."""

    def __init__(
        self,
        configuration: Configuration,
        backend: Backend,
        read: Callable[[], Configuration] | None = None,
        notifier: Notifier | None = None,
    ) -> None:
        self._configuration = configuration
        self._backend = backend
        self._read = read
        self._notifier = notifier or Notifier({})
        self.places = Places(configuration.settings.state_dir, configuration.settings.run_dir)
        self._stopping = asyncio.Event()
        self._hurrying = asyncio.Event()
        self._draining = asyncio.Event()
        self._hands_over = False
        self._fatal: UsageError | None = None
        self._images = configuration.image_map.by_urgency()
        self.left: list[str] = []
        """The VMs that could not be removed before the end."""
        self._doors: Doors | None = None

    async def serve(self) -> None:
        """Take jobs from the broker until `stop`.

        Raises `UsageError` if it cannot start, or if the broker will never have it.
        """
        async with self._running(takes_run=True) as stack:
            settings, changed = self._configuration.settings, self._changed
            self._doors = Doors(settings, self.places, self._dispatch, self._store, self._intake, changed, self._die)
            stack.push_async_callback(self._doors.close)
            await self._doors.open()
            stack.callback(tasks.start(self._ping(), "watchdog").cancel)
            stack.callback(tasks.start(self._doors.retention.keep(), "retention").cancel)
            stack.callback(tasks.start(self._drain(self._doors), "drain").cancel)
            labels = ",".join(self._configuration.image_map.labels())
            log.info("serving", extra={"backend": self._backend.value, "labels": labels})
            self._notifier.ready()
            self._changed()
            await self._stopping.wait()
            self._notifier.stopping()
            await self._end()
        if self._fatal is not None:
            raise self._fatal

    async def run_one(self, request: JobRequest) -> Outcome | None:
        """Run one job without a broker; None if it was stopped before its end.  Raises `UsageError`, `RequestError`."""
        image = self._configuration.image_map.resolve(request.runs_on)
        self._images = [image] if image is not None else []
        ended: list[Outcome] = []

        def on_end(_job: str, outcome: Outcome) -> None:
            ended.append(outcome)
            self.stop()

        async with self._running(takes_run=False):
            self._dispatch.wait_for_images = False
            self._dispatch.on_end = on_end
            await self._intake.accept(request)
            await self._stopping.wait()
            await self._end()
        return ended[0] if ended else None

    def stop(self) -> None:
        """Take nothing new, let end what ends soon, put back the rest; then it is over."""
        self._stopping.set()

    def hurry(self) -> None:
        """Stop, and wait neither for jobs nor for guests to shut down."""
        self._stopping.set()
        self._hurrying.set()

    def hand_over(self) -> None:
        """End and leave the workers at work: the next supervisor adopts them."""
        self._hands_over = True
        self._stopping.set()

    def drain(self) -> None:
        """Take nothing new, finish what was accepted, and then stop."""
        self._draining.set()

    def reload(self) -> None:
        """Read the configuration again.  One that is wrong changes nothing, and it is said why."""
        if self._read is None or self._doors is None:
            return
        self._notifier.reloading()
        try:
            configuration = self._read()
            self._dispatch.reload(configuration)
        except (SolsticeError, OSError) as error:
            log.error("not reloaded, everything stays as it was: %s", error)
        else:
            self._configuration = configuration
            self._doors.reload(configuration.settings)
            log.info("reloaded", extra={"labels": ",".join(self._configuration.image_map.labels())})
        self._notifier.ready()

    # Starting, in the order in which one part needs the other

    @contextlib.asynccontextmanager
    async def _running(self, takes_run: bool) -> AsyncIterator[contextlib.AsyncExitStack]:
        self.places.make()
        with self.places.locked(takes_run=takes_run):
            async with contextlib.AsyncExitStack() as stack:
                await self._unless_stopped(self._start(stack))
                yield stack

    async def _unless_stopped(self, starting: Coroutine[Any, Any, None]) -> None:
        """Start; a signal meanwhile ends that, as it would end anything else.  Raises `Interrupted`."""
        start = asyncio.create_task(starting)
        stopped = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({start, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not start.done():
            start.cancel()
            await asyncio.wait({start})
            raise Interrupted
        await start

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        self._store = Store(self._configuration.settings.database_url, self.places.owner())
        stack.push_async_callback(self._store.close)
        await self._store.open()
        forkserver = ForkServer()
        forkserver.start()
        stack.push_async_callback(forkserver.close)
        self._dispatch = Dispatch(
            self._configuration, self._backend, self.places, self._store, forkserver, self._changed
        )
        self._dispatch.images.fetch(self._images)
        self._intake = Intake(
            self._dispatch.owner, lambda: self._dispatch.catalogue, self._store, self._dispatch.add, self._changed
        )
        await self._store.change("host", owner=self._dispatch.owner, name=platform.node(), at=clock.wall())
        stack.push_async_callback(self._dispatch.close)
        reconcile = Reconcile(self._store, self._dispatch, forkserver, self.places)
        await reconcile.begin()
        self._reconciling = tasks.start(reconcile.keep(), "reconcile")
        stack.callback(self._reconciling.cancel)
        self._dispatch.start()

    # Running

    def _changed(self) -> None:
        """Something changed that somebody waits for: the outbox, the broker's valve, an operator at `ps`."""
        scheduler = self._dispatch.scheduler
        running = f"{len(scheduler.active)}/{scheduler.limits.slots} running, {len(scheduler.pending)} pending"
        setproctitle(f"solstice: supervisor [{running}]")
        if self._doors is not None:
            self._doors.look()
            self._notifier.status(f"{running}; broker {self._doors.broker}")

    def _die(self, error: UsageError) -> None:
        self._fatal = error
        self.stop()

    async def _ping(self) -> None:
        """Tell the service manager's watchdog that the loop turns."""
        while self._notifier.watchdog is not None:
            self._notifier.alive()
            await asyncio.sleep(self._notifier.watchdog / 2)

    async def _drain(self, doors: Doors) -> None:
        while not self._stopping.is_set():
            await self._draining.wait()
            self._draining.clear()
            if await doors.steering.begin_drain():
                self.stop()

    async def _end(self) -> None:
        # First: a pass that finds nobody followed any more would remove what the workers have.
        self._reconciling.cancel()
        await asyncio.wait({self._reconciling})
        if self._doors is not None:
            self._doors.take_nothing()
        scheduler = self._dispatch.scheduler
        if self._hands_over:
            log.info("handing over: the workers go on", extra={"jobs": len(scheduler.active)})
            await scheduler.begun(BEGIN_TIMEOUT)
            await scheduler.abandon()
        else:
            settings, attempts = self._configuration.settings, self._dispatch.attempts
            self.left = await Stopping(settings, scheduler, attempts, self._hurrying).run()
        await self._intake.settled(INTAKE_TIMEOUT)
        if self._doors is not None:
            await self._doors.publish_the_rest()
