"""Workers as the supervisor sees them: an order goes in, reports come out, and at the end there is a status.

The end of a worker is the end of its stream, read to the last report; the exit status is a second, separate event
that may be late or, when the fork server died, never come.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator

from solstice.errors import InternalError
from solstice.protocol import order, reports
from solstice.supervisor.forkclient import ForkServer
from solstice.supervisor.streams import Stream

STATUS_TIMEOUT = 2.0

log = logging.getLogger(__name__)


class Worker:
    """One worker process, from before its fork to after its end."""

    def __init__(self) -> None:
        self.pid = 0
        self._pidfd = -1
        self._stream: Stream | None = None
        self._ended = asyncio.Event()
        self._status: int | None = None
        self._ending = ""
        self._unwanted = False

    @classmethod
    async def start(cls, forkserver: ForkServer, what: order.Order) -> Worker:
        """Ask for a worker and give it its order; returns before it is forked."""
        ours, theirs = socket.socketpair()
        worker = cls()
        worker._stream = await Stream.over(ours)
        worker._stream.send(order.encode(what))
        forkserver.fork(theirs, worker._on_pid, worker._on_status)
        return worker

    async def reports(self) -> AsyncIterator[tuple[reports.Report, float]]:
        """Every report with its time, until the worker's stream ends."""
        assert self._stream is not None  # noqa: S101 - start() made it
        try:
            async for message in self._stream.messages():
                yield reports.decode(message)
        except InternalError as error:
            log.error("worker said something unreadable, killing it: %s", error, extra={"pid": self.pid})
            self.kill()

    def stop(self, stop: order.Stop) -> None:
        """Tell the worker to end its attempt."""
        if self._stream is not None:
            self._stream.send(order.encode_stop(stop))

    def kill(self) -> None:
        """SIGKILL, by pidfd: never another process that has got the same pid since; before the fork: right after it."""
        self._unwanted = True
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    async def end(self) -> str:
        """After the last report: how the process ended, in words.  May be asked again."""
        if not self._ending:
            self._ending = await self._end()
        return self._ending

    async def _end(self) -> str:
        assert self._stream is not None  # noqa: S101 - start() made it
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STATUS_TIMEOUT):
                await self._ended.wait()
        await self._stream.close()
        self._let_go()
        if self._status is None:
            return "it closed its pipe"
        if self._status < 0:
            return f"it was killed by {signal.Signals(-self._status).name}"
        return f"it ended with exit status {self._status}"

    def _on_pid(self, pid: int, pidfd: int) -> None:
        self.pid, self._pidfd = pid, pidfd
        if self._unwanted:
            self.kill()
        if self._ending:
            self._let_go()

    def _let_go(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def _on_status(self, status: int) -> None:
        self._status = status
        self._ended.set()


async def errand(forkserver: ForkServer, what: order.Order, timeout: float) -> reports.Found | reports.Failed | None:
    """Have a worker carry out an order that is not an attempt; None if it died, or was killed at `timeout` seconds.

    A `Clean` that went well gives an empty `Found`.
    """
    worker = await Worker.start(forkserver, what)
    answer: reports.Found | reports.Failed = reports.Found()
    done = False
    try:
        async with asyncio.timeout(timeout):
            async for report, _at in worker.reports():
                if isinstance(report, reports.Found | reports.Failed):
                    answer = report
                done = done or isinstance(report, reports.Done | reports.Failed)
    except TimeoutError:
        log.error("errand took longer than %.0f s, killing its worker", timeout)
    finally:
        if not done:
            worker.kill()
    await worker.end()
    return answer if done else None
