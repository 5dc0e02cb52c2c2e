"""Publishes what waits in the store's outbox, and deletes it when the broker has confirmed.

At least once, and in order for each job: what was confirmed but not yet deleted when something died is published
again, with the same message id.  While the broker is away the events wait in the store, and nothing of them is in
memory.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable

from solstice.broker.connection import Broker, Connection
from solstice.broker.publisher import NotConfirmed, Outgoing
from solstice.broker.topology import EVENTS
from solstice.host import racepoints
from solstice.supervisor import tasks
from solstice.supervisor.store import Store, StoreRefused

PAGE = 100
RETRY_DELAY = 1.0

Event = dict[str, str]

log = logging.getLogger(__name__)


class Outbox:
    """`host` is the owner id: of a database that hosts share, each publishes its own events."""

    def __init__(self, store: Store, connection: Connection, host: str) -> None:
        self._store = store
        self._host = host
        self._connection = connection
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = tasks.start(self._keep(), "outbox")

    def wake(self) -> None:
        """There may be something to publish, or somebody to publish to."""
        self._wake.set()

    async def close(self, timeout: float) -> None:
        """Publish what waits, for at most `timeout` seconds; the rest is published at the next start."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait({self._task})
        try:
            async with asyncio.timeout(timeout):
                await self._flush()
        except (TimeoutError, NotConfirmed, StoreRefused):
            log.warning("events are left to be published at the next start")

    async def _keep(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._flush()
            except (NotConfirmed, StoreRefused) as error:
                log.debug("outbox waits: %s", error)
                await asyncio.sleep(RETRY_DELAY)
                self._wake.set()

    async def _flush(self) -> None:
        """Publish everything.  Raises `NotConfirmed`, `StoreRefused`."""
        while self._connection.state is Broker.UP:
            events = _first_of_each((await self._store.ask("outbox", limit=PAGE, host=self._host))["events"])
            if not events:
                return
            racepoints.reach("supervisor.publish.before")
            results = await asyncio.gather(*(self._publish(event) for event in events), return_exceptions=True)
            ended = list(zip(events, results, strict=True))
            racepoints.reach("supervisor.publish.confirmed")
            # `change`: published again, because the database failed just now, they would all be repeats.
            await self._store.change(
                "sent", message_ids=[event["message_id"] for event, error in ended if error is None]
            )
            racepoints.reach("supervisor.publish.sent")
            for _event, error in ended:
                if error is not None:
                    raise error

    async def _publish(self, event: Event) -> None:
        body = event["body"].encode()
        await self._connection.publish(Outgoing(EVENTS, event["routing_key"], body, event["message_id"]))


def _first_of_each(events: Iterable[Event]) -> list[Event]:
    """Of each job the oldest event: the next is published when it is confirmed, so that no loss can swap the two."""
    first: dict[str, Event] = {}
    for event in events:
        body = json.loads(event["body"])
        first.setdefault(body.get("job_id") or event["message_id"], event)
    return list(first.values())
