"""The supervisor's connection to the broker: it connects, declares, consumes, publishes, and comes back after any loss.

The supervisor makes one, and is told everything by three callbacks, each called from the loop and never from inside
pika.  The connection owns its task, its channels and its reconnecting; `close` ends all of them.  It decides nothing
about messages: whoever got a `Delivery` acks it.

Only two things end it, and both need a person: a credential that is refused, and a queue or exchange that stands with
other arguments.  They come as a `UsageError` with the remedy.  Everything else is waited out, with a jittered
back-off, and is said once when it begins and once when it is over.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from enum import StrEnum

from solstice.broker import address
from solstice.broker.consumer import Consumer, Delivery, log_lost
from solstice.broker.link import Link, Lost, ThreadPerCall, dial
from solstice.broker.publisher import NotConfirmed, Outgoing, Publisher
from solstice.broker.topology import Declaration, Topology
from solstice.errors import UsageError

FIRST_DELAY = 0.25
MAX_DELAY = 30.0
CLOSE_LIMIT = 5.0

_ACCESS_REFUSED = 403
_PRECONDITION_FAILED = 406

__all__ = ["Broker", "Connection", "Delivery"]

log = logging.getLogger(__name__)


class Broker(StrEnum):
    """What the supervisor can expect of the broker."""

    DOWN = "down"
    UP = "up"
    BLOCKED = "blocked"  # it delivers, but takes no publishes (memory or disk alarm)


class Connection:
    """One connection for one event loop.

    `on_delivery(delivery)` for each message; `on_state(state, why)` on each change; `on_fatal(error)` once, after
    which only `close` makes sense.  `prefetch` bounds the deliveries that are not yet acked.
    """

    def __init__(
        self,
        url: str,
        topology: Topology,
        prefetch: int,
        on_delivery: Callable[[Delivery], None],
        on_state: Callable[[Broker, str], None],
        on_fatal: Callable[[UsageError], None],
    ) -> None:
        """Raises `UsageError` if `url` is not the address of a broker."""
        self.address = address.parse(url)
        self.state = Broker.DOWN
        self._topology = topology
        self._prefetch = prefetch
        self._on_delivery = on_delivery
        self._on_state = on_state
        self._on_fatal = on_fatal
        self._wanted = True
        self._wake = asyncio.Event()
        self._generation = 0
        self._consumer: Consumer | None = None
        self._publisher: Publisher | None = None
        self._task: asyncio.Task[None] | None = None
        self._told = ""

    def start(self) -> None:
        """Begin to connect; returns at once.  Needs a running loop, which gets a default executor without threads."""
        asyncio.get_running_loop().set_default_executor(ThreadPerCall())
        self._task = asyncio.create_task(self._keep(), name="broker")
        self._task.add_done_callback(self._ended)

    def pause(self) -> None:
        """Stop consuming, soon.  What is already on its way, at most the prefetch, is still delivered."""
        self._wanted = False
        self._wake.set()

    def resume(self) -> None:
        """Consume again."""
        self._wanted = True
        self._wake.set()

    async def close(self, timeout: float = CLOSE_LIMIT) -> None:
        """Take leave of the broker, waiting at most `timeout` seconds; unacked deliveries go back to the queue."""
        if self._task is None:
            return
        self._task.cancel()
        # wait, and not wait_for: that one waits for the cancelled task without limit
        await asyncio.wait({self._task}, timeout=timeout)
        self._task = None

    async def publish(self, message: Outgoing) -> None:
        """Publish, and return when the broker has confirmed.

        Raises `NotConfirmed` if it is not reachable, is lost before, or refuses; `NotRouted` if the message
        is mandatory and no queue takes it.  There is no time limit while the broker is there but blocked.
        """
        if self._publisher is None:
            raise NotConfirmed(self._told or "not connected")
        await self._publisher.publish(message)

    def ack(self, delivery: Delivery) -> None:
        """Acknowledge.  If the delivery's channel is gone the broker delivers it again, and this is only logged."""
        if self._consumer is None:
            log_lost(delivery)
        else:
            self._consumer.ack(delivery)

    async def _keep(self) -> None:
        """Connect and serve, again and again, until something ends that for good."""
        delay = FIRST_DELAY
        while True:
            began = time.monotonic()
            try:
                await self._connect_and_serve()
            except Lost as lost:
                self._down(str(lost))
            except UsageError as error:
                self.state = Broker.DOWN
                self._on_fatal(error)
                return
            if time.monotonic() - began > MAX_DELAY:
                delay = FIRST_DELAY
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311  many hosts, not an adversary
            delay = min(delay * 2, MAX_DELAY)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """The owner must not be left deaf by a fault of ours."""
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("the broker's task ended by a fault of Solstice", exc_info=error)
            self._on_fatal(UsageError("the connection to the broker is lost for good", str(error), "please report it"))

    async def _connect_and_serve(self) -> None:
        """One connection, from its beginning to its loss.  Raises `Lost`, or `UsageError` if it is for good."""
        try:
            link = await dial(self.address, self._on_blocked)
        except Lost as lost:
            if address.is_refusal(str(lost)):
                raise address.refused(self.address, str(lost)) from None
            raise
        try:
            await self._set_up(link)
            await self._align(link)
            self._say(Broker.UP, f"connected to {self.address.text}")
            await self._serve(link)
        finally:
            self._consumer = self._publisher = None
            await link.close(CLOSE_LIMIT)

    async def _set_up(self, link: Link) -> None:
        channel = await link.channel()
        for declaration in self._topology.declarations:
            try:
                await channel.call(declaration.method, **declaration.arguments)
            except Lost as lost:
                raise self._verdict(declaration, lost) from None
        self._generation += 1
        self._consumer = await Consumer.open(channel, self._prefetch, self._generation, self._on_delivery)
        self._watch(channel.closed)

    def _verdict(self, declaration: Declaration, lost: Lost) -> Exception:
        if lost.code == _ACCESS_REFUSED:
            return address.refused(self.address, str(lost))
        if lost.code == _PRECONDITION_FAILED:
            return UsageError(
                f"{declaration.subject} stands with other arguments on {self.address.text}",
                str(lost),
                "delete it there when it is empty, or name another with AMQP_QUEUE and AMQP_EXCHANGE",
            )
        return lost

    async def _serve(self, link: Link) -> None:
        """Keep consumer and publisher as they are wanted.  Raises `Lost` in the end."""
        while True:
            self._wake.clear()
            await self._align(link)
            await self._wake.wait()

    async def _align(self, link: Link) -> None:
        consumer = self._consumer
        assert consumer is not None  # noqa: S101  _set_up made it
        if consumer.channel.closed.done():
            raise consumer.channel.closed.result()
        if self._publisher is None or self._publisher.channel.closed.done():
            self._publisher = await Publisher.open(await link.channel())
            self._watch(self._publisher.channel.closed)
        if self._wanted and not consumer.running:
            await consumer.start(self._topology.queue)
        elif not self._wanted and consumer.running:
            await consumer.stop()

    def _watch(self, closed: asyncio.Future[Lost]) -> None:
        closed.add_done_callback(lambda _closed: self._wake.set())

    def _on_blocked(self, why: str) -> None:
        if why:
            self._say(Broker.BLOCKED, f"{self.address.text} takes no messages: {why}")
        else:
            self._say(Broker.UP, f"{self.address.text} takes messages again")

    def _down(self, why: str) -> None:
        # the reasons alternate while a broker restarts (refused, reset, refused): only the first one is said
        if self.state is not Broker.DOWN or not self._told:
            self._say(Broker.DOWN, f"no connection to {self.address.text}: {why}; trying again")

    def _say(self, state: Broker, why: str) -> None:
        log.log(logging.INFO if state is Broker.UP else logging.WARNING, "broker %s: %s", state, why)
        self.state = state
        self._told = why
        self._on_state(state, why)
