"""The supervisor as a whole: puts the parts together, starts them in order, and stops them in the reverse order.

It belongs to one state directory, whose lock it holds.  `run` returns when it was asked to stop and nothing of it is
left running; what did not end by then stands in the store for the next start.  Signals are the caller's, who calls
`stop` and `hurry`; both may come at any time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import platform
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from setproctitle import setproctitle

from solstice.broker.connection import Broker, Connection
from solstice.broker.topology import Topology
from solstice.config.imagemap import ImageMap
from solstice.config.settings import Settings
from solstice.errors import UsageError
from solstice.host import clock
from solstice.host.places import Places
from solstice.model import Backend, JobRequest, Outcome
from solstice.supervisor import recovery
from solstice.supervisor.attempt import CLEAN_TIMEOUT
from solstice.supervisor.control import Control
from solstice.supervisor.dispatch import Dispatch, stopping
from solstice.supervisor.forkclient import ForkServer
from solstice.supervisor.intake import Intake
from solstice.supervisor.outbox import Outbox
from solstice.supervisor.store import Store
from solstice.supervisor.view import View

# What cleaning may take after the guest's own shutdown, before the supervisor leaves the rest to the next start.
STOP_MARGIN = 15.0
INTAKE_TIMEOUT = 5.0
OUTBOX_TIMEOUT = 5.0

log = logging.getLogger(__name__)


class Interrupted(Exception):
    """It was asked to stop before it took jobs; nothing of it is left running."""


class Supervisor:
    def __init__(self, settings: Settings, image_map: ImageMap, backend: Backend) -> None:
        self._settings = settings
        self._map = image_map
        self._backend = backend
        self.places = Places(settings.state_dir, settings.run_dir)
        self._stopping = asyncio.Event()
        self._hurrying = asyncio.Event()
        self._fatal: UsageError | None = None
        self._images = image_map.by_urgency()
        self.left: list[str] = []
        """The VMs that could not be removed before the end."""
        self._outbox: Outbox | None = None
        self._connection: Connection | None = None

    async def serve(self) -> None:
        """Take jobs from the broker until `stop`.

        Raises `UsageError` if it cannot start, or if the broker will never have it.
        """
        async with self._running(takes_run=True) as stack:
            await self._open_doors(stack)
            log.info("serving", extra={"backend": self._backend.value, "labels": ",".join(self._map.labels())})
            await self._stopping.wait()
            await self._drain()
        if self._fatal is not None:
            raise self._fatal

    async def run_one(self, request: JobRequest) -> Outcome | None:
        """Run one job without a broker; None if it was stopped before its end.  Raises `UsageError`, `RequestError`."""
        image = self._map.resolve(request.runs_on)
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
            await self._drain()
        return ended[0] if ended else None

    def stop(self) -> None:
        """Take nothing new, let end what ends soon, put back the rest; then it is over."""
        self._stopping.set()

    def hurry(self) -> None:
        """Stop, and wait neither for jobs nor for guests to shut down."""
        self._stopping.set()
        self._hurrying.set()

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
        self._store = Store(self._settings.database_url)
        stack.push_async_callback(self._store.close)
        await self._store.open()
        forkserver = ForkServer()
        forkserver.start()
        stack.push_async_callback(forkserver.close)
        self._dispatch = Dispatch(
            self._settings, self._map, self._backend, self.places, self._store, forkserver, self._changed
        )
        self._dispatch.images.fetch(self._images)
        self._intake = Intake(self._map, self._store, self._dispatch.scheduler.add, self._changed)
        await self._store.change("host", owner=self._dispatch.owner, name=platform.node(), at=clock.wall())
        await recovery.sweep(forkserver, self._dispatch.hypervisor, self._dispatch.owner, self.places)
        await recovery.recover(self._store, self._intake, self._dispatch.scheduler)
        stack.push_async_callback(self._dispatch.close)
        self._dispatch.start()
        self._dispatch.scheduler.pump()

    async def _open_doors(self, stack: contextlib.AsyncExitStack) -> None:
        self._view = View(self._dispatch, self._store, self.places, Broker.DOWN)
        control = Control(self.places.control, self._view.commands)
        await control.start()
        stack.push_async_callback(control.close)
        self._connection = self._connect()
        stack.push_async_callback(self._connection.close)
        self._outbox = Outbox(self._store, self._connection)
        self._outbox.start()
        self._connection.start()

    def _connect(self) -> Connection:
        settings = self._settings
        topology = Topology(settings.amqp_exchange, settings.amqp_queue, settings.amqp_routing_key)
        connection = Connection(
            settings.amqp_url,
            topology,
            settings.amqp_prefetch,
            on_delivery=lambda delivery: self._intake.deliver(connection, topology, delivery),
            on_state=self._broker_changed,
            on_fatal=self._die,
        )
        return connection

    # Running

    def _changed(self) -> None:
        """Something changed that the outbox may have an event of, and that `ps` shows."""
        if self._outbox is not None:
            self._outbox.wake()
        scheduler = self._dispatch.scheduler
        running = f"{len(scheduler.active)}/{scheduler.total} running, {len(scheduler.pending)} pending"
        setproctitle(f"solstice: supervisor [{running}]")

    def _broker_changed(self, state: Broker, _why: str) -> None:
        self._view.broker = state
        self._changed()

    def _die(self, error: UsageError) -> None:
        self._fatal = error
        self.stop()

    # Stopping

    async def _drain(self) -> None:
        """Let end what ends in time; put back the rest."""
        scheduler = self._dispatch.scheduler
        scheduler.close()
        seconds = f"{self._settings.drain_timeout:g}"
        log.info("stopping; a second signal hurries", extra={"jobs": len(scheduler.active), "seconds": seconds})
        if self._connection is not None:
            self._connection.pause()
        await self._unless_hurried(scheduler.idle(self._settings.drain_timeout))
        for active in scheduler.active.values():
            active.stop(stopping(self._hurrying.is_set()))
        await self._unless_hurried(scheduler.idle(self._settings.vm_shutdown_timeout + STOP_MARGIN))
        self._dispatch.attempts.leaving = True
        for active in scheduler.active.values():
            active.stop(stopping(hurry=True))
        if not await scheduler.idle(STOP_MARGIN):
            self._kill_hung_workers()
        if not await scheduler.idle(CLEAN_TIMEOUT):
            self.left = [active.id.name for active in scheduler.active.values()]
            log.error("leaving VMs behind, which the next start removes", extra={"names": ",".join(self.left)})
        await self._intake.settled(INTAKE_TIMEOUT)
        if self._outbox is not None:
            await self._outbox.close(OUTBOX_TIMEOUT)

    def _kill_hung_workers(self) -> None:
        """What did not end although it was told to in a hurry hangs; its cleaner takes over."""
        for active in self._dispatch.scheduler.active.values():
            if active.worker is not None:
                log.error("worker hangs, killing it", extra={"job": active.job.id, "pid": active.worker.pid})
                active.worker.kill()

    async def _unless_hurried(self, waiting: Coroutine[Any, Any, bool]) -> None:
        idle = asyncio.create_task(waiting)
        hurried = asyncio.create_task(self._hurrying.wait())
        await asyncio.wait({idle, hurried}, return_when=asyncio.FIRST_COMPLETED)
        for task in (idle, hurried):
            task.cancel()
