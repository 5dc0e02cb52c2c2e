"""A long-lived child of the supervisor (store, images) that is started again when it ends by itself.

`on_start` is called with each new stream, before anything is read from it: that is where the child is told its
configuration, and again whatever it had not answered.  The child ends when its stream is closed; one that does not is
killed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Mapping

from solstice.errors import InternalError
from solstice.host import processes
from solstice.protocol.lines import Message
from solstice.supervisor import tasks
from solstice.supervisor.streams import Stream

RESTART_DELAY = 1.0
END_TIMEOUT = 10.0
KILL_TIMEOUT = 10.0

log = logging.getLogger(__name__)


class Child:
    def __init__(
        self,
        module: str,
        on_start: Callable[[Stream], None],
        on_message: Callable[[Message], None],
        on_end: Callable[[], None] = lambda: None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._module = module
        self._on_start = on_start
        self._on_message = on_message
        self._on_end = on_end
        self._environment = environment
        self._task: asyncio.Task[None] | None = None
        self._stream: Stream | None = None
        self._closing = False

    def start(self) -> None:
        self._task = tasks.start(self._keep_alive(), self._module)

    @property
    def stream(self) -> Stream | None:
        """The stream to the child that runs now; None while there is none."""
        return self._stream

    async def close(self) -> None:
        """Close the stream, wait for the end, kill after `END_TIMEOUT` seconds."""
        self._closing = True
        if self._stream is not None:
            await self._stream.close(END_TIMEOUT)
        if self._task is not None:
            await self._task

    async def _keep_alive(self) -> None:
        while not self._closing:
            try:
                await self._one_life()
            except OSError as error:
                log.error("child cannot be started: %s", error, extra={"child": self._module})
            self._on_end()
            if not self._closing:
                log.error("child ended by itself, starting it again", extra={"child": self._module})
                await asyncio.sleep(RESTART_DELAY)

    async def _one_life(self) -> None:
        ours, theirs = socket.socketpair()
        process = processes.spawn(self._module, theirs, environment=self._environment)
        theirs.close()
        pidfd = os.pidfd_open(process.pid)
        try:
            await self._listen(await Stream.over(ours))
            if not await readable(pidfd, END_TIMEOUT):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                await readable(pidfd, KILL_TIMEOUT)
            processes.reap(process)
        finally:
            os.close(pidfd)

    async def _listen(self, stream: Stream) -> None:
        if not self._closing:
            self._stream = stream
            self._on_start(stream)
            try:
                async for message in stream.messages():
                    self._on_message(message)
            except (InternalError, LookupError, ValueError) as error:
                log.error("child said something unreadable: %s", error, extra={"child": self._module})
        await stream.close(END_TIMEOUT)
        self._stream = None


async def readable(descriptor: int, timeout: float) -> bool:
    """True when `descriptor` becomes readable within `timeout` seconds; of a pidfd: when its process has ended."""
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    loop.add_reader(descriptor, event.set)
    try:
        async with asyncio.timeout(timeout):
            await event.wait()
        return True
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(descriptor)
