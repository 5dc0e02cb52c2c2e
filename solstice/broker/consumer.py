"""Deliveries of one channel: consume, ack, and stop without anything going back to the queue.

Used by broker/session.py alone.  A stop is more than a cancel: what the queue has sent when a consumer is cancelled
but the channel has not yet seen, the broker itself puts back, and counts as a failed delivery (RabbitMQ 4 dead-letters
at 20 of them).  So a stop first lets the prefetch fill up by holding the acks back: with a full window nothing can be
on its way.  Then it cancels, and sends the acks.  If the queue has too little to fill the window, it is not waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from solstice.broker.link import Channel

# Acks are held back for at most this long and a round trip.
HOLD_LIMIT = 0.2

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message.  `tag` means something only on the channel that brought it, which `generation` names."""

    body: bytes
    headers: Mapping[str, Any]
    message_id: str
    redelivered: bool
    tag: int
    generation: int


class Consumer:
    """The consuming side of one channel."""

    def __init__(self, channel: Channel, generation: int, on_delivery: Callable[[Delivery], None]) -> None:
        self.channel = channel
        self.prefetch = 0
        self._generation = generation
        self._on_delivery = on_delivery
        self._tag = ""
        self._window: set[int] = set()  # the unacked deliveries of this start; the broker counts them by consumer
        self._full = asyncio.Event()
        self._held: list[Delivery] | None = None
        # a deleted queue cancels its consumer; the owner connects anew, which declares it again
        channel.raw.add_on_cancel_callback(lambda _frame: self._close("the broker cancelled the consumer"))

    @property
    def running(self) -> bool:
        return bool(self._tag) and bool(self.channel.raw.is_open)

    async def start(self, queue: str, prefetch: int) -> None:
        """Raises `Lost`."""
        await self.channel.call("basic_qos", prefetch_count=prefetch)
        self.prefetch = prefetch
        self._window.clear()
        self._full.clear()
        answer = await self.channel.call("basic_consume", queue=queue, on_message_callback=self._receive)
        self._tag = answer.method.consumer_tag

    async def stop(self) -> None:
        """Deliver what is on its way, at most the prefetch, and nothing after it.  Raises `Lost`."""
        self._held = []
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HOLD_LIMIT):
                    await self._full.wait()
            await self.channel.cancel(self._tag)
            self._tag = ""
        finally:
            held, self._held = self._held, None
            for delivery in held:
                self.ack(delivery)

    def ack(self, delivery: Delivery) -> None:
        """Acknowledge a delivery.  If its channel is gone it will come again, and this is only logged."""
        if delivery.generation != self._generation or not self.channel.raw.is_open:
            log_lost(delivery)
        elif self._held is not None:
            self._held.append(delivery)
        else:
            self._window.discard(delivery.tag)
            if len(self._window) < self.prefetch:
                self._full.clear()
            self.channel.raw.basic_ack(delivery.tag)

    def drop(self) -> None:
        """Give back what is not acked, by closing the channel."""
        self._close("the deliveries that nobody took are given back")

    def _close(self, why: str) -> None:
        if self.channel.raw.is_open:
            self.channel.raw.close(0, why)

    def _receive(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self._window.add(method.delivery_tag)
        if len(self._window) >= self.prefetch:
            self._full.set()
        message_id = properties.message_id
        delivery = Delivery(
            body=body,
            headers=properties.headers or {},
            message_id=message_id if isinstance(message_id, str) else "",
            redelivered=method.redelivered,
            tag=method.delivery_tag,
            generation=self._generation,
        )
        # not from inside pika: there an exception would abort the connection
        asyncio.get_running_loop().call_soon(self._on_delivery, delivery)


def log_lost(delivery: Delivery) -> None:
    log.info("delivery %s cannot be acked: its channel is gone; it will come again", delivery.message_id)
