"""The supervisor's part in the tests of the connection: it collects what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pika

from solstice.broker.address import SYSTEM, Tls
from solstice.broker.connection import Broker, Connection, Delivery
from solstice.broker.publisher import Outgoing
from solstice.broker.topology import Topology
from solstice.errors import UsageError

LIMIT = 60.0
JOBS = Topology()


class Owner:
    def __init__(self) -> None:
        self.deliveries: asyncio.Queue[Delivery] = asyncio.Queue()
        self.states: asyncio.Queue[tuple[Broker, str]] = asyncio.Queue()
        self.fatal: asyncio.Future[UsageError] = asyncio.get_running_loop().create_future()

    def connection(self, url: str, topology: Topology = JOBS, prefetch: int = 10, tls: Tls = SYSTEM) -> Connection:
        return Connection(
            url,
            topology,
            prefetch,
            self.deliveries.put_nowait,
            lambda state, why: self.states.put_nowait((state, why)),
            self.fatal.set_result,
            tls,
        )

    async def tick(self) -> None:
        """For what tells nobody that it happened."""
        await asyncio.sleep(0.02)

    async def said(self, wanted: Broker) -> str:
        """The very next state must be `wanted`: a state is said once."""
        state, why = await self.states.get()
        assert state is wanted, why
        return why


@asynccontextmanager
async def connected(url: str, topology: Topology = JOBS, prefetch: int = 10) -> AsyncIterator[tuple[Connection, Owner]]:
    owner = Owner()
    connection = owner.connection(url, topology, prefetch)
    connection.start()
    try:
        await owner.said(Broker.UP)
        yield connection, owner
    finally:
        await connection.close()


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), LIMIT))


def request(number: int = 1, **changes: Any) -> Outgoing:
    return Outgoing(JOBS.exchange, JOBS.routing_key, b'{"n": %d}' % number, f"id-{number}", **changes)


@contextmanager
def operator(url: str) -> Iterator[Any]:
    """A channel of someone else."""
    other = pika.BlockingConnection(pika.URLParameters(url))
    try:
        yield other.channel()
    finally:
        other.close()


def waiting(url: str, queue: str) -> int:
    """How many messages are ready in the queue."""
    with operator(url) as channel:
        count: int = channel.queue_declare(queue, passive=True).method.message_count
        return count


def consumers(url: str) -> int:
    """How many consumers the queue of the requests has."""
    with operator(url) as channel:
        return int(channel.queue_declare(JOBS.queue, passive=True).method.consumer_count)


def with_password(url: str, password: str) -> str:
    head, tail = url.split("@")
    return f"{head.rsplit(':', 1)[0]}:{password}@{tail}"
