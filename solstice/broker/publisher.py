"""Publishes on one channel, each awaited until the broker has confirmed it.

Used by broker/session.py alone.  The channel is for publishing only: the broker closes a channel on which
something is published to an exchange that is not there, and a consumer on it would die with it.
All messages are persistent JSON.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pika
from pika import spec

from solstice.broker.link import Channel, Lost
from solstice.host import clock


class NotConfirmed(Exception):
    """The broker did not confirm a publish: it may or may not have the message.  Publish it again later."""


class NotRouted(NotConfirmed):
    """A mandatory message reached no queue."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message to publish.  `message_id` is how the receiver tells a repeat, and how a returned one is known."""

    exchange: str
    routing_key: str
    body: bytes
    message_id: str
    headers: Mapping[str, Any] = field(default_factory=dict)
    mandatory: bool = False


def properties(message_id: str, headers: Mapping[str, Any]) -> Any:
    """The properties of everything that Solstice publishes; an empty `message_id` is left out."""
    return pika.BasicProperties(
        content_type="application/json",
        delivery_mode=2,  # persistent
        message_id=message_id or None,
        timestamp=int(clock.wall()),
        headers=dict(headers),
    )


@dataclass(slots=True)
class _Waiting:
    message: Outgoing
    confirmed: asyncio.Future[None]
    returned: bool = False


class Publisher:
    """The confirms of one channel; make it with `open`."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._next_tag = 1
        self._waiting: dict[int, _Waiting] = {}

    @classmethod
    async def open(cls, channel: Channel) -> Publisher:
        """Switch the channel to confirms.  Raises `Lost`."""
        publisher = cls(channel)
        channel.raw.add_on_return_callback(publisher._on_return)
        channel.closed.add_done_callback(publisher._on_closed)
        await channel.call("confirm_delivery", ack_nack_callback=publisher._on_answer)
        return publisher

    async def publish(self, message: Outgoing) -> None:
        """Return when the broker has confirmed.  Raises `NotConfirmed`, `NotRouted`."""
        if self.channel.closed.done():
            raise NotConfirmed(str(self.channel.closed.result()))
        confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            self.channel.raw.basic_publish(
                message.exchange,
                message.routing_key,
                message.body,
                properties(message.message_id, message.headers),
                mandatory=message.mandatory,
            )
        except pika.exceptions.AMQPError as error:
            raise NotConfirmed(str(error)) from None
        self._waiting[self._next_tag] = _Waiting(message, confirmed)
        self._next_tag += 1
        await confirmed

    def _on_return(self, _channel: Any, _method: Any, returned: Any, _body: bytes) -> None:
        # the broker returns a message before it confirms it, in the order of publishing
        for waiting in self._waiting.values():
            if waiting.message.message_id == returned.message_id and not waiting.returned:
                waiting.returned = True
                return

    def _on_answer(self, frame: Any) -> None:
        tag, multiple = frame.method.delivery_tag, frame.method.multiple
        tags = [known for known in self._waiting if known <= tag] if multiple else [tag]
        refused = isinstance(frame.method, spec.Basic.Nack)
        for each in tags:
            _settle(self._waiting.pop(each), refused)

    def _on_closed(self, closed: asyncio.Future[Lost]) -> None:
        for waiting in self._waiting.values():
            if not waiting.confirmed.done():
                waiting.confirmed.set_exception(NotConfirmed(str(closed.result())))
        self._waiting.clear()


def _settle(waiting: _Waiting, refused: bool) -> None:
    confirmed = waiting.confirmed
    if confirmed.done():  # the caller gave up
        return
    if refused:
        confirmed.set_exception(NotConfirmed("the broker refused the message"))
    elif waiting.returned:
        name = waiting.message.exchange
        confirmed.set_exception(NotRouted(f"no queue is bound to exchange {name} for {waiting.message.routing_key}"))
    else:
        confirmed.set_result(None)
