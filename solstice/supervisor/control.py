"""The control socket: one JSON object a line in, one out.  The command line and nobody else speaks to it.

A request is `{"v": 1, "cmd": NAME, …}`; the answer `{"v": 1, "ok": true, "result": …}`, or `"ok": false` with an
`error` for people.  A client may ask several things on one connection.  The commands themselves are given by `doors`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import socket
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

from solstice.errors import SolsticeError
from solstice.protocol.lines import BadLine, Lines, Message, encode

VERSION = 1
# Whose members may steer the host, besides its own user and root.
GROUP = "solstice"
# A client that has closed its end and is owed an answer for so many seconds does not wait for it.
LEFT_AFTER = 1.0
_CHUNK = 1 << 16

Command = Callable[[Message], Awaitable[Any]]

log = logging.getLogger(__name__)


class Control:
    def __init__(self, path: Path, commands: Mapping[str, Command]) -> None:
        self._path = path
        self._commands = commands
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        # Ours to remove: whoever holds the state directory's lock is the only one who listens here.
        self._path.unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(self._path))
        # Nobody can connect before it listens, and by then it is clear who may.
        with contextlib.suppress(LookupError, PermissionError):  # no such group here, or we are not in it
            shutil.chown(self._path, group=GROUP)
        self._path.chmod(0o660)
        self._server = await asyncio.start_unix_server(self._client, sock=sock)

    async def close(self) -> None:
        if self._server is None:
            return
        self._server.close()
        for client in self._clients:
            client.cancel()
        if self._clients:
            await asyncio.wait(self._clients)
        self._path.unlink(missing_ok=True)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio runs each client in a task
        self._clients.add(task)
        try:
            await self._serve(reader, writer)
        except (ConnectionError, BadLine, asyncio.CancelledError) as error:
            log.debug("control client left: %s", error)
        finally:
            self._clients.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = Lines()
        while data := await reader.read(_CHUNK):
            for message in lines.feed(data):
                writer.write(encode(await self._unless_left(reader, self._answer(message))))
                await writer.drain()

    async def _unless_left(self, reader: asyncio.StreamReader, answering: Coroutine[Any, Any, Message]) -> Message:
        """An answer that takes long, unless nobody waits for it any more.  Raises `ConnectionError`."""
        answer = asyncio.create_task(answering)
        try:
            while not (await asyncio.wait({answer}, timeout=LEFT_AFTER))[0]:
                if reader.at_eof():
                    raise ConnectionAbortedError("it left before the answer")
            return await answer
        finally:
            answer.cancel()

    async def _answer(self, message: Message) -> Message:
        command = self._commands.get(str(message.get("cmd")))
        if message.get("v") != VERSION or command is None:
            known = ", ".join(sorted(self._commands))
            return {"v": VERSION, "ok": False, "error": f"not a command of this version; it has {known}"}
        try:
            return {"v": VERSION, "ok": True, "result": await command(message)}
        except SolsticeError as error:
            return {"v": VERSION, "ok": False, "error": str(error)}
