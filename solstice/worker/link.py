"""What binds a worker to its supervisor, whichever that is at the moment; and to none, when there is none.

It starts with the pipe that the order came by and lasts over any number of supervisors that attach to `worker.sock`
(protocol/attach.py).  Each report goes to the journal first.  What a supervisor has yet to be told is a place in the
journal, not a buffer: one that is slow, stopped or gone costs neither time nor memory.  Nothing here waits;
`Watch` does, for `readers` and `writers`, and calls `serve`.
"""

from __future__ import annotations

import logging
import select
import socket
import time
from collections import deque
from pathlib import Path
from types import TracebackType

from solstice.errors import Cause, InfraError, InternalError
from solstice.host import clock, racepoints
from solstice.host.channel import Channel, Closed
from solstice.host.journal import Journal
from solstice.protocol import attach, order, reports
from solstice.protocol.lines import Message, encode

# How long the last words wait for a disk that is full, or for a supervisor; the VM is gone by then.
LINGER = 600.0
TRY_AGAIN = 1.0

log = logging.getLogger(__name__)


class _Supervisor:
    """One connection, and from which line on it has yet to be told."""

    def __init__(self, channel: Channel, next_line: int) -> None:
        self.channel = channel
        self._next = next_line
        self._unsent = b""

    def is_behind(self, lines: list[bytes]) -> bool:
        return bool(self._unsent) or self._next < len(lines)

    def tell(self, lines: list[bytes]) -> None:
        """Send what it takes now.  Raises `Closed`."""
        while self.is_behind(lines):
            if not self._unsent:
                self._unsent = lines[self._next]
                self._next += 1
            self._offer()
            if self._unsent:
                return

    def show_life(self, lines: list[bytes], line: bytes) -> None:
        """Send `line`; not to one that has more to read already.  Raises `Closed`."""
        if not self.is_behind(lines):
            self._unsent = line
            self._offer()

    def _offer(self) -> None:
        self._unsent = self._unsent[self.channel.offer(self._unsent) :]


class Link:
    """The journal, the listening socket and at most one supervisor, of the attempt whose directory `record` is.

    A context manager; at its end nobody can attach any more.  Raises `OSError` if socket or journal cannot be made, and
    `InfraError` if the attempt was given up before.
    """

    def __init__(self, record: Path, pipe: Channel) -> None:
        self._path = record / attach.SOCKET
        # First, as there can be but one: a second worker must not take the socket of the first.
        self._journal = Journal(record / attach.JOURNAL)
        racepoints.reach("worker.listen.before")
        try:
            self._listener = _listen(self._path)
        except OSError:
            self._journal.close()
            raise
        racepoints.reach("worker.listen.after")
        if (record / attach.CLOSED).exists():
            (record / attach.JOURNAL).unlink()
            self._journal.close()
            self._stop_listening()
            raise InfraError(Cause.HOST_LOST, "the attempt was given up before its worker began")
        self._lets_in = True
        self._supervisor: _Supervisor | None = _Supervisor(pipe, 0)
        self._newcomer: Channel | None = None
        self._stops: deque[order.Stop] = deque()
        self._sign_due = time.monotonic() + racepoints.sooner(reports.HEARTBEAT)

    def __enter__(self) -> Link:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _at: TracebackType | None) -> None:
        self._leave_the_end_to_somebody(time.monotonic() + racepoints.sooner(LINGER))
        racepoints.reach("worker.leave.before")
        self._stop_listening()
        self._journal.close()
        self._let_go_of_supervisor()
        self._let_go_of_newcomer()
        racepoints.reach("worker.leave.after")

    def send(self, report: reports.Report) -> None:
        """Write a report into the journal, then say it to whoever listens."""
        point = f"worker.{_word(report)}"
        racepoints.reach(f"{point}.unwritten")
        self._journal.append(encode(reports.encode(report, len(self._journal.lines), clock.wall())))
        racepoints.reach(f"{point}.written")
        self._tell()
        racepoints.reach(f"{point}.said")

    # What Watch asks

    @property
    def readers(self) -> list[socket.socket | Channel]:
        """What to wait for in order to hear."""
        heard = [self._newcomer, self._supervisor.channel if self._supervisor else None]
        door = [self._listener] if self._lets_in else []
        return [*door, *(channel for channel in heard if channel is not None)]

    @property
    def writers(self) -> list[Channel]:
        """What to wait for in order to go on telling."""
        if self._supervisor is not None and self._supervisor.is_behind(self._journal.lines):
            return [self._supervisor.channel]
        return []

    @property
    def sign_due(self) -> float:
        """When (monotonic) to call `serve`, whatever else happens."""
        return self._sign_due

    def serve(self) -> order.Stop | None:
        """Do what can be done now: let in, hear, tell, show life.  The next stop order, if there is one."""
        self._let_in()
        if self._newcomer is not None:
            self._hear(self._newcomer)
        if self._supervisor is not None:
            self._hear(self._supervisor.channel)
        self._tell()
        self._show_life()
        return self._stops.popleft() if self._stops else None

    # Hearing

    def _let_in(self) -> None:
        if not self._lets_in:
            return
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            # No descriptor left: it waits at the door, and we do not spin there.
            log.error("a supervisor cannot attach now: %s", error)
            self._lets_in = False
            return
        self._let_go_of_newcomer()
        self._newcomer = Channel(sock)

    def _hear(self, channel: Channel) -> None:
        try:
            for message in channel.pending():
                self._obey(channel, message)
        except Closed:
            self._let_go(channel)
        except InternalError as error:
            log.error("let go of a supervisor that said something unreadable: %s", error)
            self._let_go(channel)

    def _obey(self, channel: Channel, message: Message) -> None:
        """Raises `BadMessage`."""
        if channel is self._newcomer:
            self._attach(channel, attach.decode(message))
        elif order.is_stop(message):
            self._stops.append(order.decode_stop(message))

    def _attach(self, channel: Channel, after: int) -> None:
        self._let_go_of_supervisor()
        self._newcomer = None
        self._supervisor = _Supervisor(channel, min(after + 1, len(self._journal.lines)))

    def _leave_the_end_to_somebody(self, deadline: float) -> None:
        """While the disk does not take the journal's end, and nobody has heard it, it is in this process alone."""
        while not (self._journal.is_whole or self._is_heard()) and time.monotonic() < deadline:
            select.select(self.readers, self.writers, [], TRY_AGAIN)
            self.serve()
            self._journal.flush()

    # Telling

    def _is_heard(self) -> bool:
        return self._supervisor is not None and not self._supervisor.is_behind(self._journal.lines)

    def _tell(self) -> None:
        if self._supervisor is not None:
            try:
                self._supervisor.tell(self._journal.lines)
            except Closed:
                self._let_go_of_supervisor()

    def _show_life(self) -> None:
        if time.monotonic() < self._sign_due:
            return
        self._sign_due = time.monotonic() + racepoints.sooner(reports.HEARTBEAT)
        self._lets_in = True
        if self._supervisor is not None:
            try:
                self._supervisor.show_life(self._journal.lines, encode(reports.encode_alive(clock.wall())))
            except Closed:
                self._let_go_of_supervisor()

    # Letting go

    def _let_go(self, channel: Channel) -> None:
        if channel is self._newcomer:
            self._let_go_of_newcomer()
        else:
            self._let_go_of_supervisor()

    def _let_go_of_newcomer(self) -> None:
        if self._newcomer is not None:
            self._newcomer.close()
            self._newcomer = None

    def _let_go_of_supervisor(self) -> None:
        if self._supervisor is not None:
            self._supervisor.channel.close()
            self._supervisor = None

    def _stop_listening(self) -> None:
        self._path.unlink(missing_ok=True)
        self._listener.close()


def _word(report: reports.Report) -> str:
    """What the race points call this report."""
    return report.phase.value if isinstance(report, reports.PhaseEntered) else reports.kind_of(report)


# While a worker is in a call of the hypervisor nobody is let in, and each supervisor that comes and goes takes a place.
BACKLOG = 128


def _listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(str(path))
    path.chmod(0o600)  # nobody can connect before the next line
    sock.listen(BACKLOG)
    sock.setblocking(False)
    return sock
