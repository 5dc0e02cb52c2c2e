"""JSON lines over a socket, for the supervisor's loop: reading waits, writing never does.

What is sent is buffered until the peer takes it; a child that is stopped costs memory of what it was told, which is
little, and no time.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping
from typing import Any

from solstice.protocol.lines import Lines, Message, encode

_CHUNK = 1 << 16
CLOSE_TIMEOUT = 5.0


class Stream:
    """One end of a stream of messages; owns its socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._lines = Lines()

    @classmethod
    async def over(cls, sock: socket.socket) -> Stream:
        return cls(*await asyncio.open_unix_connection(sock=sock))

    @property
    def peer_socket(self) -> socket.socket:
        """The socket itself, to ask who the peer is."""
        found: socket.socket = self._writer.get_extra_info("socket")
        return found

    def send(self, message: Mapping[str, Any]) -> None:
        """Send without waiting; to a peer that is gone it goes nowhere, as `messages` will tell."""
        self._writer.write(encode(message))

    async def messages(self) -> AsyncIterator[Message]:
        """Every message until the peer closes its end.  Raises `BadLine`."""
        while True:
            try:
                data = await self._reader.read(_CHUNK)
            except ConnectionError:
                return
            if not data:
                return
            for message in self._lines.feed(data):
                yield message

    def abort(self) -> None:
        """Close at once; whoever reads `messages` comes to their end."""
        self._writer.transport.abort()

    async def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Send what is not sent yet, within `timeout` seconds, to a peer that takes it; then close."""
        self._writer.close()
        # Nobody may be cancelled over it: all who wait for the end of a stream wait for one and the same future.
        closed = asyncio.ensure_future(self._writer.wait_closed())
        if not (await asyncio.wait({closed}, timeout=timeout))[0]:
            self.abort()
        with contextlib.suppress(ConnectionError):
            await closed
