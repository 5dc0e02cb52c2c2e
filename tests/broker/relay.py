"""A relay between a client and the broker that can be cut, stalled and closed: the failures of a network, on demand."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit


class Relay:
    """Listens on one IPv4 port of its own once `listen` is called; `url` is the broker's through it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._target = (parts.hostname, parts.port or 5672)
        with socket.create_server(("127.0.0.1", 0)) as reserved:
            self.port = reserved.getsockname()[1]
        credentials = parts.netloc.rsplit("@", 1)[0]
        self.url = parts._replace(netloc=f"{credentials}@localhost:{self.port}").geturl()
        self.to_broker = asyncio.Event()  # cleared, that direction stands still
        self.to_broker.set()
        self.sent = bytearray()  # all that went to the broker
        self.from_broker = asyncio.Event()
        self.from_broker.set()
        self._server: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    def cut(self) -> None:
        """Every connection is gone, without a good-bye."""
        for writer in self._writers:
            writer.transport.abort()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self._target)
        for source, sink, flowing in ((reader, back, self.to_broker), (there, writer, self.from_broker)):
            self._writers.add(sink)
            pump = asyncio.create_task(self._pump(source, sink, flowing))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, flowing: asyncio.Event) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                await flowing.wait()
                if flowing is self.to_broker:
                    self.sent += data
                sink.write(data)
                await sink.drain()
        self._writers.discard(sink)
        sink.transport.abort()


@asynccontextmanager
async def relayed(url: str, *, listening: bool = True) -> AsyncIterator[Relay]:
    relay = Relay(url)
    if listening:
        await relay.listen()
    try:
        yield relay
    finally:
        await relay.close()
