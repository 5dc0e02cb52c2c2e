"""The supervisor's connection to the broker: it connects, declares, consumes, publishes, and comes back after any loss.

The supervisor makes one, and is told everything by three callbacks, each called from the loop and never from inside
pika.  The connection owns its task, its sessions (broker/session.py) and its reconnecting; `close` ends all of them.
It decides nothing about messages: whoever got a `Delivery` acks it.  What is asked of it (consume or not, how many
ahead) is a wish that holds from then on, whatever it is doing at the time.

Only two things end it, and both need a person: a credential that is refused, and a queue or exchange that stands with
other arguments.  They come as a `UsageError` with the remedy.  Everything else is waited out, with a jittered
back-off, and is said once when it begins and once when it is over.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterator
from enum import StrEnum

from solstice.broker import address
from solstice.broker.address import SYSTEM, Tls
from solstice.broker.consumer import Delivery, log_lost
from solstice.broker.link import Lost, ThreadPerCall
from solstice.broker.publisher import NotConfirmed, Outgoing
from solstice.broker.session import Session
from solstice.broker.topology import Topology
from solstice.errors import UsageError

FIRST_DELAY = 0.25
MAX_DELAY = 30.0
CLOSE_LIMIT = 5.0

__all__ = ["Broker", "Connection", "Delivery"]

log = logging.getLogger(__name__)


def back_off() -> Iterator[float]:
    """Seconds before each further try: doubling to `MAX_DELAY`, jittered, so that many hosts do not come at once."""
    delay = FIRST_DELAY
    while True:
        yield delay * random.uniform(0.5, 1.0)  # noqa: S311  not an adversary
        delay = min(delay * 2, MAX_DELAY)


class Broker(StrEnum):
    """What the supervisor can expect of the broker."""

    DOWN = "down"
    UP = "up"
    BLOCKED = "blocked"  # it delivers, but takes no publishes (memory or disk alarm)


class Connection:
    """The broker, for one event loop.

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
        tls: Tls = SYSTEM,
    ) -> None:
        """Raises `UsageError` if `url` is not the address of a broker, or a file of `tls` is wrong."""
        self.address = address.parse(url, tls)
        self.state = Broker.DOWN
        self._topology = topology
        self._prefetch = prefetch
        self._on_delivery = on_delivery
        self._on_state = on_state
        self._on_fatal = on_fatal
        self._wanted = True
        self._wake = asyncio.Event()
        self._generation = 0
        self._session: Session | None = None
        self._blocked = ""
        self._task: asyncio.Task[None] | None = None
        self._told = ""
        self._idle = asyncio.Event()
        self._idle.set()

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

    def set_prefetch(self, prefetch: int) -> None:
        """Another bound for the deliveries that are not yet acked, soon."""
        self._prefetch = prefetch
        self._wake.set()

    def drop(self) -> None:
        """Give every unacked delivery back to the queue, by a new session; paused, it stays paused."""
        if self._session is not None and self._session.consumer is not None:
            self._session.consumer.drop()

    @property
    def consuming(self) -> bool:
        """True while the broker may deliver."""
        return self._session is not None and self._session.consumer is not None and self._session.consumer.running

    async def not_consuming(self) -> None:
        """Return when the broker delivers nothing, because of a pause or of a loss."""
        await self._idle.wait()

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
        if self._session is None or self._session.publisher is None:
            raise NotConfirmed(self._told or "not connected")
        await self._session.publisher.publish(message)

    def ack(self, delivery: Delivery) -> None:
        """Acknowledge.  If the delivery's channel is gone the broker delivers it again, and this is only logged."""
        if self._session is None or self._session.consumer is None:
            log_lost(delivery)
        else:
            self._session.consumer.ack(delivery)

    async def _keep(self) -> None:
        """Connect and serve, again and again, until something ends that for good."""
        delays = back_off()
        while True:
            began = time.monotonic()
            try:
                await self._connect_and_serve()
            except Lost as lost:
                if address.is_refusal(str(lost)):
                    self._end(address.refused(self.address, str(lost)))
                    return
                self._down(str(lost))
            except UsageError as error:
                self._end(error)
                return
            if time.monotonic() - began > MAX_DELAY:
                delays = back_off()
            await asyncio.sleep(next(delays))

    async def _connect_and_serve(self) -> None:
        """One session, from its beginning to its loss.  Raises `Lost`, or `UsageError` if it is for good."""
        self._blocked = ""
        self._generation += 1
        session = Session(self.address, self._topology, self._on_blocked, self._wake.set)
        try:
            await session.open(self._generation, self._on_delivery)
            self._session = session
            await self._align(session)
            self._up(f"connected to {self.address.text}")
            while True:
                self._wake.clear()
                await self._align(session)
                await self._wake.wait()
        finally:
            self._session = None
            self._idle.set()
            await session.close(CLOSE_LIMIT)

    async def _align(self, session: Session) -> None:
        self._idle.clear()
        await session.align(self._wanted, self._prefetch)
        if not self.consuming:
            self._idle.set()

    def _end(self, error: UsageError) -> None:
        self.state = Broker.DOWN
        self._on_fatal(error)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """The owner must not be left deaf by a fault of ours."""
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("the broker's task ended by a fault of Solstice", exc_info=error)
            self._end(UsageError("the connection to the broker is lost for good", str(error), "please report it"))

    def _on_blocked(self, why: str) -> None:
        self._blocked = why
        if self.state is not Broker.DOWN:
            self._up(f"{self.address.text} takes messages again")

    def _up(self, why: str) -> None:
        if self._blocked:
            self._say(Broker.BLOCKED, f"{self.address.text} takes no messages: {self._blocked}")
        else:
            self._say(Broker.UP, why)

    def _down(self, why: str) -> None:
        # The reasons alternate while a broker restarts (refused, reset, refused): only the first one is said, and
        # one that a person can do something about.
        hint = address.hint(self.address, why)
        if self.state is not Broker.DOWN or not self._told or hint not in self._told:
            text = f"no connection to {self.address.text}: {why}; trying again"
            self._say(Broker.DOWN, f"{text} ({hint})" if hint else text)

    def _say(self, state: Broker, why: str) -> None:
        log.log(logging.INFO if state is Broker.UP else logging.WARNING, "broker %s: %s", state, why)
        self.state = state
        self._told = why
        self._on_state(state, why)
