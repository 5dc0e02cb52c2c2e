"""Deliveries become jobs, or dead letters: parse, validate, resolve, store, and only then ack.

A delivery is acked when its job is in the store, or when a copy of it with the reason stands in the dead-letter queue.
If either fails, it is not acked, and the broker delivers it again.  The same request again is a no-op.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable

from solstice.broker.connection import Connection, Delivery
from solstice.broker.deadletter import dead_letter
from solstice.broker.publisher import NotConfirmed, Outgoing
from solstice.broker.topology import DEAD_LETTERS, Topology
from solstice.errors import RequestError
from solstice.host import clock, racepoints
from solstice.lifecycle import JobState
from solstice.model import JobRequest
from solstice.protocol import jobrequest
from solstice.protocol.store import ErrorKind
from solstice.supervisor import tasks
from solstice.supervisor.catalogue import Catalogue
from solstice.supervisor.jobs import Job
from solstice.supervisor.store import Store, StoreRefused

# Rejections that are kept in memory for whoever asks why.
REMEMBERED = 1000

log = logging.getLogger(__name__)


class Intake:
    """`host` is the owner id; `catalogue()` is what this host offers now; `on_job` is called with each job that is new,
    `on_change` after each stored event and whenever a delivery came or went."""

    def __init__(
        self,
        host: str,
        catalogue: Callable[[], Catalogue],
        store: Store,
        on_job: Callable[[Job], None],
        on_change: Callable[[], None],
    ) -> None:
        self._host = host
        self._catalogue = catalogue
        self._store = store
        self._on_job = on_job
        self._on_change = on_change
        self._taking: dict[asyncio.Task[None], float] = {}
        self._rejected: OrderedDict[str, str] = OrderedDict()

    async def accept(self, request: JobRequest) -> bool:
        """Store a request as a job; False if it was there before.  Raises `RequestError`."""
        try:
            job = self._catalogue().job(request, time.monotonic())
        except RequestError as error:
            # A job that this host has done stays done, also when its label is gone by now.
            if await self._is_known(request, error):
                return False
            raise
        document = jobrequest.to_document(request)
        try:
            answer = await self._store.change(
                "accept",
                request=document,
                label=job.label,
                image=job.image.name,
                at=clock.wall(),
                host=self._host,
            )
        except StoreRefused as refused:
            if refused.kind is not ErrorKind.BAD_REQUEST:
                raise
            # Within 1 MiB as UTF-8, and yet beyond what the store takes, which counts it escaped as ASCII.
            raise RequestError(refused.why) from None
        context = {"job": job.id, "label": job.label, "attempt": 0, "cause": "none"}
        if not answer["new"]:
            log.info("request seen before, nothing to do", extra={**context, "state": answer["state"]})
            return False
        log.info("job accepted", extra={**context, "image": job.image.name, "source": request.source})
        # A commit whose answer was lost is told as new once more: by then a reconcile pass may have ended the job.
        if answer["state"] == JobState.ACCEPTED.value:
            self._on_job(job)
        self._on_change()
        return True

    async def _is_known(self, request: JobRequest, error: RequestError) -> bool:
        try:
            found = (await self._store.change("job", job=request.request_id))["job"]
        except StoreRefused as refused:
            if refused.kind is not ErrorKind.UNKNOWN_JOB:
                raise
            return False
        context = {"job": found["id"], "label": found["label"], "state": found["state"], "detail": error.why}
        log.info("request seen before, nothing to do", extra=context)
        return True

    def deliver(self, connection: Connection, topology: Topology, delivery: Delivery) -> None:
        """Take one delivery; returns at once."""
        task = tasks.start(self._take(connection, topology, delivery), "intake")
        self._taking[task] = time.monotonic()
        task.add_done_callback(self._taken)
        self._on_change()

    @property
    def taking(self) -> int:
        """How many deliveries are not stored and acked yet."""
        return len(self._taking)

    def oldest(self) -> float:
        """For how many seconds the oldest of them has been here; 0 if there is none."""
        return time.monotonic() - next(iter(self._taking.values())) if self._taking else 0.0

    def rejection(self, beginning: str) -> str | None:
        """Why one of the last requests was not accepted; None if none whose id begins so was rejected."""
        return next((why for id, why in reversed(self._rejected.items()) if id.startswith(beginning)), None)

    async def settled(self, timeout: float) -> None:
        """Wait until every delivery that was taken is stored and acked, at most `timeout` seconds."""
        if self._taking:
            await asyncio.wait(self._taking, timeout=timeout)

    def _taken(self, task: asyncio.Task[None]) -> None:
        del self._taking[task]
        self._on_change()

    async def _take(self, connection: Connection, topology: Topology, delivery: Delivery) -> None:
        request = None
        try:
            request = jobrequest.parse(delivery.body)
            racepoints.reach("supervisor.accept.before")
            await self.accept(request)
        except RequestError as error:
            # Not confirmed: the connection is lost, and the broker delivers the original again.
            with contextlib.suppress(NotConfirmed):
                await self._reject(connection, topology, delivery, request, error)
                connection.ack(delivery)
        else:
            racepoints.reach("supervisor.accept.stored")
            connection.ack(delivery)
            racepoints.reach("supervisor.accept.acked")

    async def _reject(
        self,
        connection: Connection,
        topology: Topology,
        delivery: Delivery,
        request: JobRequest | None,
        error: RequestError,
    ) -> None:
        request_id = request.request_id if request else _uuid(delivery.message_id)
        message_id = delivery.message_id or request_id or str(uuid.uuid4())
        self._remember(request_id or message_id, f"{error.why} [{error.cause}]")
        body, headers = dead_letter(delivery.body, delivery.headers, error.cause, error.why, delivery.message_id)
        queue = topology.dead_letter_queue
        await connection.publish(Outgoing(DEAD_LETTERS, queue, body, message_id, headers, mandatory=True))
        # The dead letter stands by now, with the reason; an event that cannot be stored must not hold the delivery.
        with contextlib.suppress(StoreRefused):
            await self._store.change(
                "reject",
                request_id=request_id,
                cause=error.cause.value,
                detail=error.why,
                label=request.runs_on if request else None,
                occasion=hashlib.sha256(delivery.message_id.encode() + b"\0" + delivery.body).hexdigest(),
                at=clock.wall(),
                host=self._host,
            )
        context = {"job": request_id or message_id, "label": request.runs_on if request else ""}
        log.warning("request rejected", extra={**context, "attempt": 0, "cause": error.cause, "detail": error.why})
        self._on_change()

    def _remember(self, message_id: str, why: str) -> None:
        self._rejected[message_id] = why
        if len(self._rejected) > REMEMBERED:
            self._rejected.popitem(last=False)


def _uuid(text: str) -> str | None:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return None
