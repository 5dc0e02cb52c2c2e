"""Workers as the supervisor sees them: an order goes in, numbered reports come out, and at the end there is a status.

A worker outlives its stream: when that ends before the last report, the supervisor attaches to the worker's own socket
and reads on from the last number that it has; so a new supervisor adopts the workers of the one before.  Only when
nobody listens there is the worker gone, and then its journal has what it could not say any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from solstice.errors import InternalError
from solstice.host import journal, racepoints
from solstice.protocol import attach, order, reports
from solstice.protocol.lines import Message
from solstice.supervisor import attaching
from solstice.supervisor.attaching import BUSY_DELAY
from solstice.supervisor.child import readable
from solstice.supervisor.forkclient import ForkServer
from solstice.supervisor.streams import Stream

STATUS_TIMEOUT = 2.0
# A disk that does not give a journal back for so long has lost it: its job must end, and its slot come free.
UNREADABLE_LIMIT = 600.0
GRACE = racepoints.sooner(reports.HEARTBEAT + 1.0)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Heard:
    """One report with its number and its time by the wall clock."""

    report: reports.Said
    number: int
    at: float


class Worker:
    """One worker process, from before its fork to after its end, or from its adoption on.

    `record` is the directory of its attempt's record, where its socket and its journal are; None for an errand, which
    has neither.
    """

    def __init__(self, record: Path | None = None, last: int = attach.FROM_THE_START) -> None:
        self.pid = 0
        self.last = last
        """The number of the last report that was heard."""
        self.hangs = False
        """It was killed because it said nothing for too long."""
        self._record = record
        self._pidfd = -1
        self._stream: Stream | None = None
        self._ended = asyncio.Event()
        self._status: int | None = None
        self._ending = ""
        self._unwanted = False
        self._is_adopted = False
        self._stop: order.Stop | None = None

    @classmethod
    async def start(cls, forkserver: ForkServer, what: order.Order) -> Worker:
        """Ask for a worker and give it its order; returns before it is forked."""
        ours, theirs = socket.socketpair()
        worker = cls(what.record if isinstance(what, order.Run) else None)
        worker._stream = await Stream.over(ours)
        worker._stream.send(order.encode(what))
        forkserver.fork(theirs, worker._on_pid, worker._on_status)
        return worker

    @classmethod
    def adopt(cls, record: Path, last: int) -> Worker:
        """A worker that another supervisor started, heard up to report `last`; it may be gone by now."""
        worker = cls(record, last)
        worker._is_adopted = True
        return worker

    @property
    def was_lost(self) -> bool:
        """It was gone before anybody could adopt it: with its host, as far as one can tell."""
        return self._is_adopted and not self.pid

    async def reports(self, patience: Callable[[], float] = lambda: float("inf")) -> AsyncIterator[Heard]:
        """Every further report until the worker is gone.

        One that says nothing for `patience()` seconds, not even that it is alive, hangs: it is killed.
        """
        while self._stream is not None or await self._attach():
            before = self.last
            async for heard in self._hear(patience):
                yield heard
                if isinstance(heard.report, reports.Done | reports.Failed):
                    return
            await self._close()
            if self.last == before and self._is_adopted and not self._unwanted:
                await asyncio.sleep(BUSY_DELAY)  # of another version, perhaps: it lets nobody in whom it does not know
        for heard in await self._rest():
            yield heard

    def stop(self, stop: order.Stop) -> None:
        """Tell the worker to end its attempt; once more if the supervisor has to attach to it after that."""
        self._stop = stop
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

    async def _hear(self, patience: Callable[[], float]) -> AsyncIterator[Heard]:
        """What comes over the stream that there is, until its end."""
        assert self._stream is not None  # noqa: S101 - the caller has looked
        messages = self._stream.messages()
        try:
            while True:
                message = await _within(patience(), anext(messages, None))
                if message is None:
                    return
                heard = _heard(message)
                if heard.number > self.last:
                    self.last = heard.number
                    yield heard
        except TimeoutError:
            log.error("worker says nothing any more, killing it", extra={"pid": self.pid})
            self.hangs = True
            self.kill()
        except InternalError as error:
            log.error("worker said something unreadable, killing it: %s", error, extra={"pid": self.pid})
            self.kill()

    async def _attach(self) -> bool:
        """Connect to the worker's own socket; False if nobody listens there, and nobody ever will."""
        if self._record is None:
            return False
        if not await self._meet(self._record):
            await attaching.close_to_latecomers(self._record)
            if not await self._meet(self._record):
                return False
        assert self._stream is not None  # noqa: S101 - they have met
        self._stream.send(attach.encode(self.last))
        if self._stop is not None:
            self._stream.send(order.encode_stop(self._stop))
        log.info("attached to a worker", extra={"pid": self.pid, "after": self.last})
        return True

    async def _meet(self, record: Path) -> bool:
        met = None if self._unwanted else await attaching.meet(record, self.pid)
        if met is None:
            return False
        if met.pidfd >= 0:
            self._let_go()
            self.pid, self._pidfd = met.pid, met.pidfd
        self._stream = met.stream
        if self._stream is None:
            self.hangs = True
            self.kill()
        return self._stream is not None

    async def _rest(self) -> list[Heard]:
        """What the journal has that was not heard; a disk that is in trouble is waited for, but not for ever."""
        if self._record is None:
            return []
        path, deadline = self._record / attach.JOURNAL, time.monotonic() + UNREADABLE_LIMIT
        while True:
            try:
                found = [_heard(message) for message in journal.read(path, self.last)]
                break
            except OSError as error:
                is_over = time.monotonic() >= deadline
                what = "given up" if is_over else "tried again"
                log.error("the journal %s cannot be read, and is %s: %s", path, what, error.strerror)
                if is_over:
                    return []
            await asyncio.sleep(BUSY_DELAY)
        self.last = found[-1].number if found else self.last
        return found

    async def _close(self) -> None:
        if self._stream is not None:
            await self._stream.close()
            self._stream = None

    async def _end(self) -> str:
        if not self._is_adopted:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STATUS_TIMEOUT):
                    await self._ended.wait()
        elif self._pidfd >= 0:
            await readable(self._pidfd, STATUS_TIMEOUT)
        await self._close()
        if self._status is None:
            self.kill()  # it has said its last word, and hangs; one that has ended does not mind
        self._let_go()
        if self.hangs:
            return "it hung and was killed"
        if self._status is None:
            return "it was gone" if self.was_lost else "it closed its pipe"
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


async def _within(patience: float, next_message: Awaitable[Message | None]) -> Message | None:
    """The next message, None at the end.  Raises `TimeoutError`, and what reading raises.

    A supervisor that was itself stopped for longer finds its time over and the words of its workers unread, both at
    once, and one whose whole host was stopped finds workers that could not say any.  So silence is believed late.
    """
    reading = asyncio.ensure_future(next_message)
    try:
        for seconds in (patience, GRACE):
            await asyncio.wait({reading}, timeout=seconds)
            if reading.done():
                return reading.result()
        raise TimeoutError
    finally:
        reading.cancel()


def _heard(message: Message) -> Heard:
    """A message of a worker; one without a number is never new.  Raises `BadMessage`."""
    report, at = reports.decode(message)
    number = reports.number(message)
    return Heard(report, attach.FROM_THE_START if number is None else number, at)


async def errand(forkserver: ForkServer, what: order.Order, timeout: float) -> reports.Found | reports.Failed | None:
    """Have a worker carry out an order that is not an attempt; None if it died, or was killed at `timeout` seconds.

    A `Clean` that went well gives an empty `Found`.
    """
    worker = await Worker.start(forkserver, what)
    answer: reports.Found | reports.Failed = reports.Found()
    done = False
    try:
        async with asyncio.timeout(timeout):
            async for heard in worker.reports():
                if isinstance(heard.report, reports.Found | reports.Failed):
                    answer = heard.report
                done = done or isinstance(heard.report, reports.Done | reports.Failed)
    except TimeoutError:
        log.error("errand took longer than %.0f s, killing its worker", timeout)
    finally:
        if not done:
            worker.kill()
        await worker.end()  # also if we are cancelled: its stream is ours to close
    return answer if done else None
