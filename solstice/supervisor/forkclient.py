"""The supervisor's end of the fork server: asks for processes, hears how they ended, never waits.

A fork server that is stopped keeps the requests in its socket, or in the queue here when that is full; what has no
answer after `FORK_TIMEOUT` seconds means that it hangs, and it is replaced.  Workers do not depend on it: that one of
them has ended is also known by its stream.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import signal
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from solstice.host import processes, racepoints
from solstice.supervisor.child import END_TIMEOUT, readable

FORK_TIMEOUT = racepoints.sooner(60.0)
GRACE = 2.0
RESTART_DELAY = 1.0
_MAX_ANSWER = 4096

log = logging.getLogger(__name__)


@dataclass
class _Asked:
    channel: socket.socket
    on_pid: Callable[[int, int], None]
    on_status: Callable[[int], None]
    timer: asyncio.TimerHandle | None = None


class ForkServer:
    def __init__(self) -> None:
        self._tokens = itertools.count(1)
        self._unsent: deque[int] = deque()
        self._asked: dict[int, _Asked] = {}
        self._sock: socket.socket | None = None
        self._pidfd = -1
        self._restarting: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Raises `OSError`."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        try:
            self._process = processes.spawn("solstice.worker.forkserver", theirs)
            self._pidfd = os.pidfd_open(self._process.pid)
        except OSError:
            ours.close()  # what was spawned ends by that
            raise
        finally:
            theirs.close()
        self._sock = ours
        asyncio.get_running_loop().add_reader(ours, self._hear)

    def fork(
        self, channel: socket.socket, on_pid: Callable[[int, int], None], on_status: Callable[[int], None]
    ) -> None:
        """Have a worker forked that owns `channel`, which is ours no more.

        `on_pid(pid, pidfd)` is called when it runs, `on_status(exit code)` when it has ended; neither is if the fork
        server dies first.
        """
        token = next(self._tokens)
        self._asked[token] = _Asked(channel, on_pid, on_status)
        self._unsent.append(token)
        if self._sock is not None:
            self._watch(token)
            self._send()

    def _watch(self, token: int) -> None:
        """Only what is silent for a moment more hangs: it may be we who were stopped, with its answer unread."""
        loop, asked = asyncio.get_running_loop(), self._asked[token]

        def doubt() -> None:
            asked.timer = loop.call_later(GRACE, self._hangs)

        asked.timer = loop.call_later(FORK_TIMEOUT, doubt)

    async def close(self) -> None:
        """Close the stream and wait for the server's end; kill it after `END_TIMEOUT` seconds."""
        if self._restarting is not None:
            self._restarting.cancel()
        for token in self._unsent:
            self._asked[token].channel.close()
        if self._sock is not None:
            self._forget()
            if not await readable(self._pidfd, END_TIMEOUT):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
                await readable(self._pidfd, END_TIMEOUT)
            self._reaper()()

    def _send(self) -> None:
        loop = asyncio.get_running_loop()
        assert self._sock is not None  # noqa: S101 - started before it is used
        while self._unsent:
            asked = self._asked[self._unsent[0]]
            request = json.dumps({"token": self._unsent[0]}).encode()
            try:
                socket.send_fds(self._sock, [request], [asked.channel.fileno()])
            except BlockingIOError:
                loop.add_writer(self._sock, self._send)
                return
            except ConnectionError:
                return  # the reader hears of it as well, and starts the next one
            self._unsent.popleft()
            asked.channel.close()
        loop.remove_writer(self._sock)

    def _hear(self) -> None:
        assert self._sock is not None  # noqa: S101 - the reader is there only with it
        try:
            data, descriptors, _flags, _address = socket.recv_fds(self._sock, _MAX_ANSWER, 1)
        except BlockingIOError:
            return
        except ConnectionError:
            data, descriptors = b"", []
        if not data:
            self._restart("it ended by itself")
            return
        answer = json.loads(data)
        asked = self._asked.get(answer["token"])
        if asked is None:
            for descriptor in descriptors:
                os.close(descriptor)
            return
        if asked.timer is not None:
            asked.timer.cancel()
        if "pid" in answer:
            asked.on_pid(answer["pid"], descriptors[0] if descriptors else -1)
        else:
            del self._asked[answer["token"]]
            asked.on_status(answer["status"])

    def _hangs(self) -> None:
        signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        self._restart(f"it did not answer for {FORK_TIMEOUT:.0f} s")

    def _restart(self, why: str) -> None:
        log.error("starting another fork server: %s", why)
        self._forget()
        # It is dead or as good as dead; its status is fetched when it has one, and nobody waits for that.
        asyncio.get_running_loop().add_reader(self._pidfd, self._reaper())
        self._asked = {token: self._asked[token] for token in self._unsent}
        self._start_soon()

    def _start_soon(self) -> None:
        """After a pause: one that ends at once, as while its package is replaced, must not be started in a loop."""
        self._restarting = asyncio.get_running_loop().call_later(RESTART_DELAY, self._start_again)

    def _start_again(self) -> None:
        self._restarting = None
        try:
            self.start()
        except OSError as error:
            log.error("no fork server can be started, trying again in %.0f s: %s", RESTART_DELAY, error)
            self._start_soon()
            return
        for token in self._unsent:
            self._watch(token)
        self._send()

    def _forget(self) -> None:
        assert self._sock is not None  # noqa: S101 - started before
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._sock)
        loop.remove_writer(self._sock)
        self._sock.close()
        self._sock = None
        for asked in self._asked.values():
            if asked.timer is not None:
                asked.timer.cancel()

    def _reaper(self) -> Callable[[], None]:
        """What fetches the status of the server that runs now, once it has ended."""
        loop, process, pidfd = asyncio.get_running_loop(), self._process, self._pidfd

        def reap() -> None:
            loop.remove_reader(pidfd)
            os.close(pidfd)
            process.wait(0)

        return reap
