"""A TCP proxy between a host and RabbitMQ that records when each delivery came and when it was acknowledged.

It runs in a thread of its own and passes bytes on before it looks at them.  Used by tests that hold a host to a
bound: with a recorder between the two, neither of them has to be believed.  It serves any number of connections, one
after the other and at once; while the broker is down nobody listens here either, so that a client is refused as the
broker would refuse it.  A consumer that has the broker wait for no acknowledgement would look like one that never sends
any: there is none here.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
import time
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from tests.real.frames import Frames, Kind, Method

_CHUNK = 1 << 16
_SECONDS = 30.0
_LOOK_AGAIN = 0.05


class Ending(Enum):
    OPEN = "open"
    ACKED = "acked"
    NACKED = "nacked"
    REJECTED = "rejected"
    LOST = "lost"  # with its channel or its connection


_ENDINGS = {Kind.ACK: Ending.ACKED, Kind.NACK: Ending.NACKED, Kind.REJECT: Ending.REJECTED}


@dataclass(slots=True)
class Delivery:
    """One delivery; `at` and `until` are monotonic, `until` counts once it is no longer open."""

    connection: int
    channel: int
    tag: int
    at: float
    until: float = 0.0
    ending: Ending = Ending.OPEN

    def seconds(self, now: float) -> float:
        """How long the host had it without a word to the broker."""
        return (now if self.ending is Ending.OPEN else self.until) - self.at


class Recorder:
    """`with Recorder(url) as recorder`: the host connects to `recorder.url`; afterwards every connection is gone."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.scheme == "amqp", "what is encrypted cannot be recorded"
        assert parts.hostname is not None
        self._target = (parts.hostname, parts.port or 5672)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        credentials = parts.netloc.rpartition("@")[0]
        self.url = parts._replace(netloc=f"{credentials}@127.0.0.1:{self._port}").geturl()
        self._numbers = itertools.count(1)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._lock = threading.Lock()
        self._deliveries: list[Delivery] = []
        self._open: dict[tuple[int, int, int], Delivery] = {}
        self._fault: ValueError | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="recorder")

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_SECONDS)
        self._loop.close()

    @property
    def deliveries(self) -> list[Delivery]:
        """Every delivery so far, as it stands, in their order.  Raises `ValueError` if one could not be read."""
        with self._lock:
            if self._fault is not None:
                raise self._fault
            return [replace(delivery) for delivery in self._deliveries]

    @property
    def acked(self) -> int:
        """How many deliveries were acknowledged."""
        return sum(delivery.ending is Ending.ACKED for delivery in self.deliveries)

    def longest_unacked(self) -> float:
        """The longest that the host had a delivery without a word to the broker, in seconds; 0 if it had none.

        One that is open counts until now; one whose channel or connection ended counts until then.
        """
        now = time.monotonic()
        return max((delivery.seconds(now) for delivery in self.deliveries), default=0.0)

    def cut(self) -> None:
        """Every connection is gone, without a good-bye; the next one may be made at once."""
        self._call(self._cut())

    # In the recorder's own thread

    def _call(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_SECONDS)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)

    async def _close(self) -> None:
        self._stop_listening()
        await self._cut()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _look_at_broker(self) -> None:
        """Stop listening if the broker has, until it takes connections again."""
        if not await self._answers() and self._server is not None:
            self._stop_listening()
            self._returning = asyncio.create_task(self._listen_again())

    async def _listen_again(self) -> None:
        while not await self._answers():
            await asyncio.sleep(_LOOK_AGAIN)
        await self._listen()

    async def _answers(self) -> bool:
        try:
            _reader, writer = await asyncio.open_connection(*self._target)
        except OSError:
            return False
        writer.close()
        return True

    async def _cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = next(self._numbers)
        ends = [writer]
        try:
            with suppress(OSError):
                there, back = await asyncio.open_connection(*self._target)
                ends.append(back)
                self._writers.update(ends)
                await self._relay(number, (reader, back), (there, writer))
            self._lose(number)
            await self._look_at_broker()  # before its client hears of it, which may come again at once
        finally:
            self._lose(number)
            self._writers.difference_update(ends)
            for end in ends:
                end.close()

    async def _relay(self, number: int, *ways: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        """Return when one direction has ended; what is on its way in the other is still delivered."""
        pumps = {asyncio.create_task(self._pump(number, source, sink)) for source, sink in ways}
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()

    async def _pump(self, number: int, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        frames = Frames()
        with suppress(OSError):
            while data := await source.read(_CHUNK):
                now = time.monotonic()
                sink.write(data)
                self._look(number, frames, data, now)
                await sink.drain()

    def _look(self, number: int, frames: Frames, data: bytes, now: float) -> None:
        with self._lock:
            try:
                for method in frames.feed(data):
                    self._note(number, method, now)
            except ValueError as error:
                self._fault = error

    def _note(self, number: int, method: Method, now: float) -> None:
        if method.kind is Kind.DELIVER:
            delivery = Delivery(number, method.channel, method.tag, now)
            self._deliveries.append(delivery)
            self._open[number, method.channel, method.tag] = delivery
        elif method.kind is Kind.CHANNEL_CLOSE:
            self._end(Ending.LOST, now, [key for key in self._open if key[:2] == (number, method.channel)])
        elif method.kind is Kind.CONNECTION_CLOSE:
            self._end(Ending.LOST, now, [key for key in self._open if key[0] == number])
        else:
            self._end(_ENDINGS[method.kind], now, [key for key in self._open if _concerns(method, number, key)])

    def _lose(self, number: int) -> None:
        with self._lock:
            self._end(Ending.LOST, time.monotonic(), [key for key in self._open if key[0] == number])

    def _end(self, ending: Ending, now: float, keys: list[tuple[int, int, int]]) -> None:
        for key in keys:
            delivery = self._open.pop(key)
            delivery.ending, delivery.until = ending, now


def _concerns(method: Method, number: int, key: tuple[int, int, int]) -> bool:
    """Whether a delivery is one that the method is about; tag 0 with `multiple` means all there are."""
    connection, channel, tag = key
    if (connection, channel) != (number, method.channel):
        return False
    return method.tag in (0, tag) or tag < method.tag if method.multiple else tag == method.tag
