"""A blocking JSON-lines channel over a stream socket, for the children: store, images, worker, session.

The other end is the supervisor's loop (or the worker, for a session).  Every wait has a deadline or a reason to have
none; the end of the stream is an answer (`Closed`), not an exception deep inside.  The supervisor itself never uses
this: it may not block (see supervisor/streams.py).
"""

from __future__ import annotations

import select
import socket
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from solstice.protocol.lines import Lines, Message, encode


class Closed(Exception):
    """The peer closed its end."""


class Channel:
    """One end of a stream of messages; owns the socket it is given."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        self._sock = sock
        self._lines = Lines()
        self._ready: deque[Message] = deque()
        self._eof = False

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        self._sock.close()

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one message, waiting as long as the peer needs to take it.  Raises `Closed`."""
        try:
            self._sock.sendall(encode(message))
        except (BrokenPipeError, ConnectionResetError):
            raise Closed from None

    def offer(self, data: bytes) -> int:
        """Send what the peer takes of `data` now, without waiting; how many bytes that were.  Raises `Closed`."""
        try:
            return self._sock.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        except (BrokenPipeError, ConnectionResetError):
            raise Closed from None

    def receive(self, deadline: float | None = None) -> Message | None:
        """The next message; None when `deadline` (monotonic) passes first.  Raises `Closed` at the end."""
        while not self._ready:
            if self._eof:
                raise Closed
            if not self.wait(deadline):
                return None
            self._read()
        return self._ready.popleft()

    def pending(self) -> list[Message]:
        """Every message that is there now, without waiting.  Raises `Closed` when there is none and never will be."""
        # not `wait`: with a message already taken in, it is true while the socket has nothing, and the read would block
        while not self._eof and self._readable(0.0):
            self._read()
        if self._eof and not self._ready:
            raise Closed
        messages = list(self._ready)
        self._ready.clear()
        return messages

    def wait(self, deadline: float | None = None) -> bool:
        """True as soon as `receive` would not block; False when `deadline` (monotonic) passes first."""
        if self._ready or self._eof:
            return True
        return self._readable(deadline)

    def _readable(self, deadline: float | None) -> bool:
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        return bool(poll.poll(timeout))

    def _read(self) -> None:
        try:
            data = self._sock.recv(1 << 16)
        except ConnectionResetError:
            data = b""
        if data:
            self._ready.extend(self._lines.feed(data))
        else:
            self._eof = True
