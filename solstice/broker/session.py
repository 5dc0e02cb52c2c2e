"""Two connections to the broker, one that consumes and one that publishes, from their beginning to the loss of either.

Two, because RabbitMQ stops reading from a connection that publishes while a memory or disk alarm holds: acks on it
would wait until the alarm is over.  The one that consumes declares as well, and never publishes.

Used by broker/connection.py alone, which makes a new session after each loss and must `close` every one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from solstice.broker import address as address_
from solstice.broker.address import Address
from solstice.broker.consumer import Consumer, Delivery
from solstice.broker.link import Link, Lost, dial
from solstice.broker.publisher import Publisher
from solstice.broker.topology import Declaration, Topology
from solstice.errors import UsageError

_PRECONDITION_FAILED = 406


class Session:
    """`on_blocked(why)` as `dial` has it; `on_loss()` when something is gone, and `align` must be called."""

    def __init__(
        self, address: Address, topology: Topology, on_blocked: Callable[[str], None], on_loss: Callable[[], None]
    ) -> None:
        self.consumer: Consumer | None = None
        self.publisher: Publisher | None = None
        self._address = address
        self._topology = topology
        self._on_blocked = on_blocked
        self._on_loss = on_loss
        self._links: list[Link] = []

    async def open(self, generation: int, on_delivery: Callable[[Delivery], None]) -> None:
        """Connect; nothing is declared or consumed yet.  Raises `Lost`."""
        incoming = await self._dial("consumer", lambda _why: None)
        await self._dial("publisher", self._on_blocked)
        self.consumer = Consumer(await incoming.channel(), generation, on_delivery)
        self._watch(self.consumer.channel.closed)

    async def align(self, consume: bool, prefetch: int) -> None:
        """Make consumer and publisher what they should be now.

        Raises `Lost` if anything is gone that takes a new session, `UsageError` if there is no point in one.
        """
        assert self.consumer is not None  # noqa: S101  open made it
        for closed in (self._links[0].closed, self._links[1].closed, self.consumer.channel.closed):
            if closed.done():
                raise closed.result()
        if self.publisher is None or self.publisher.channel.closed.done():
            await self._renew_publisher(self.consumer)
        if self.consumer.running and not (consume and self.consumer.prefetch == prefetch):
            await self.consumer.stop()
        if consume and not self.consumer.running:
            await self.consumer.start(self._topology.queue, prefetch)

    async def close(self, timeout: float) -> None:
        """Take leave of the broker on both connections, waiting at most `timeout` seconds."""
        self.publisher = None
        await asyncio.gather(*(link.close(timeout) for link in self._links))

    async def _dial(self, role: str, on_blocked: Callable[[str], None]) -> Link:
        link = await dial(self._address.named(role), on_blocked)
        self._links.append(link)
        self._watch(link.closed)
        return link

    async def _renew_publisher(self, consumer: Consumer) -> None:
        if self.publisher is not None and address_.is_refusal(str(lost := self.publisher.channel.closed.result())):
            raise lost
        # each time, for an exchange that someone deleted is why a publisher's channel is closed
        for declaration in self._topology.declarations:
            try:
                await consumer.channel.call(declaration.method, **declaration.arguments)
            except Lost as lost:
                raise self._verdict(declaration, lost) from None
        self.publisher = await Publisher.open(await self._links[1].channel())
        self._watch(self.publisher.channel.closed)

    def _verdict(self, declaration: Declaration, lost: Lost) -> Exception:
        if lost.code == _PRECONDITION_FAILED:
            return UsageError(
                f"{declaration.subject} stands with other arguments on {self._address.text}",
                str(lost),
                "delete it there when it is empty, or name another with AMQP_QUEUE and AMQP_EXCHANGE",
            )
        return lost

    def _watch(self, closed: asyncio.Future[Lost]) -> None:
        closed.add_done_callback(lambda _closed: self._on_loss())
