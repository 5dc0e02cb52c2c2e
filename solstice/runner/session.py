"""The host's side of a guest: reads everything the guest sends, writes the logs, and drives the runner.

It runs in a process of its own (worker/session_process.py), the only one that touches a guest's bytes.  It is given
its descriptors: a channel to the worker, the two listening sockets that QEMU connects to, the two logs.  It keeps no
clock: deadlines are the worker's, who says `cancel` or closes the channel.  Everything a guest sends is hostile: the
pure `protocol.runner` decides what is a record, and all the rest is output.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import select
import socket
import struct
from collections.abc import Callable

from solstice.host.channel import Channel, Closed
from solstice.model import JobRequest, Step
from solstice.protocol import runner
from solstice.protocol.session import CHECKOUT, Begin, Cancel, Event, Told, decode_for_session, encode
from solstice.runner.joblog import JobLog

_CHUNK = 1 << 18
_UCRED = struct.Struct("3i")
# What Linux, illumos and the BSDs print first.  Firmware and boot loaders print as well, so a byte alone says nothing.
_KERNEL = re.compile(rb"Linux version |\[ {2,}\d+\.\d{6}\]|SunOS Release |FreeBSD \d")
_KERNEL_WORDS = 32


class Session:
    """One guest, from its first byte to its last."""

    def __init__(
        self, worker: Channel, port: socket.socket, console: socket.socket, log: JobLog, console_log: JobLog
    ) -> None:
        self._worker = worker
        self._listeners = {port.fileno(): (port, self._read_port), console.fileno(): (console, self._read_console)}
        self._log = log
        self._console_log = console_log
        self._poll = select.poll()
        self._open: dict[int, tuple[socket.socket, Callable[[socket.socket], None]]] = {}
        self._port: socket.socket | None = None
        self._unsent = b""
        self._console_tail: bytes | None = b""
        self._decoder = runner.Decoder(nonce=secrets.token_hex(16), guard=secrets.token_hex(16))
        self._peers: frozenset[int] = frozenset()
        self._environment: dict[str, str] = {}
        self._request: JobRequest | None = None
        self._waiting: list[int] = []
        self._current: int | None = None
        self._has_begun = False
        self._said_bye = False
        self._refused = False

    def run(self) -> None:
        """Serve until the worker closes the channel."""
        with contextlib.suppress(Closed):
            self._begin(self._worker.receive())
            while True:
                for descriptor, event in self._poll.poll():
                    self._ready(descriptor, event)
        self._log.write(self._decoder.flush())
        self._log.close()
        self._console_log.close()

    def _begin(self, message: object) -> None:
        begin = decode_for_session(message) if isinstance(message, dict) else None
        if not isinstance(begin, Begin):
            raise Closed
        self._peers = frozenset(begin.peers)
        self._environment = dict(begin.environment or {})
        self._request = begin.request
        if begin.request is not None:
            checkout = [CHECKOUT] if begin.request.repo_url else []
            self._waiting = checkout + list(range(len(begin.request.steps)))
        for descriptor in (self._worker.fileno(), *self._listeners):
            self._poll.register(descriptor, select.POLLIN)

    def _ready(self, descriptor: int, event: int) -> None:
        if descriptor == self._worker.fileno():
            self._obey()
        elif descriptor in self._listeners:
            self._accept(*self._listeners[descriptor])
        elif descriptor in self._open:
            sock, read = self._open[descriptor]
            if event & select.POLLOUT:
                self._flush()
            if event & ~select.POLLOUT:
                read(sock)

    def _obey(self) -> None:
        for message in self._worker.pending():
            if isinstance(decode_for_session(message), Cancel):
                self._waiting = []
                self._send(runner.cancel())

    # What QEMU does

    def _accept(self, listener: socket.socket, read: Callable[[socket.socket], None]) -> None:
        sock, _ = listener.accept()
        _pid, uid, _gid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        if uid not in self._peers:
            if not self._refused:  # once: whoever can connect must not be able to fill the disk with it
                self._log.mark(f"refused a connection of user {uid}: not the hypervisor")
            self._refused = True
            sock.close()
            return
        sock.setblocking(False)
        self._open[sock.fileno()] = (sock, read)
        self._poll.register(sock, select.POLLIN)
        if read == self._read_port:
            self._port = sock

    def _read_port(self, sock: socket.socket) -> None:
        data = self._receive(sock)
        for event in self._decoder.feed(data):
            self._handle(event)

    def _read_console(self, sock: socket.socket) -> None:
        data = self._receive(sock)
        self._console_log.write(data)
        if self._console_tail is not None:
            seen = self._console_tail + data
            found = _KERNEL.search(seen) is not None
            self._console_tail = None if found else seen[-_KERNEL_WORDS:]
            if found:
                self._tell(Event.KERNEL)
        if sock.fileno() < 0:
            # QEMU closes its sockets when it ends, in any order: what the port still holds comes first.
            if self._port is not None and self._port.fileno() >= 0:
                self._drain(self._port)
            self._tell(Event.GONE)

    def _drain(self, port: socket.socket) -> None:
        while port.fileno() >= 0 and select.select([port], [], [], 0)[0]:
            self._read_port(port)

    def _receive(self, sock: socket.socket) -> bytes:
        """What is there; at the end of the stream the socket is closed and nothing comes back."""
        try:
            data = sock.recv(_CHUNK)
        except BlockingIOError:
            return b""
        except ConnectionResetError:
            data = b""
        if not data:
            self._poll.unregister(sock)
            del self._open[sock.fileno()]
            sock.close()
        return data

    # What the runner says

    def _handle(self, event: runner.Event) -> None:
        match event:
            case runner.Output(data):
                self._log.write(data)
            case runner.Hello(guest_at=guest_at):
                self._tell(Event.HELLO, guest_at=guest_at)
                if self._request is not None:
                    self._send(runner.welcome(self._decoder.nonce, self._decoder.guard))
                    self._next_step()
            # A guest's root may know the nonce: what is not due now is not believed, whoever says it.
            case runner.StepStart(index, guest_at) if index == self._current and not self._has_begun:
                self._has_begun = True
                self._tell(Event.STEP_BEGAN, index, guest_at=guest_at)
            case runner.StepEnd(index, exit_code, guest_at) if index == self._current:
                self._current = None
                self._tell(Event.STEP_ENDED, index, exit_code, guest_at)
                if exit_code != 0:
                    self._log.mark(f"{self._name(index)}: exit status {exit_code}")
                    self._waiting = []
                self._next_step()
            case runner.Bye() if self._said_bye:
                self._said_bye = False
                self._tell(Event.FINISHED)
            case runner.Rebooted():
                self._tell(Event.REBOOTED)

    def _next_step(self) -> None:
        if self._request is None:
            return
        if not self._waiting:
            self._said_bye = True
            self._send(runner.bye())
            return
        index = self._current = self._waiting.pop(0)
        self._has_begun = False
        self._log.mark(self._name(index))
        self._tell(Event.STEP_STARTED, index)
        if index == CHECKOUT:
            request = self._request
            self._send(runner.checkout(request.repo_url, request.commit_sha, request.ref))
        else:
            step = self._request.steps[index]
            self._send(runner.step(index, self._step_environment(self._request, step), step.run))

    def _step_environment(self, request: JobRequest, step: Step) -> dict[str, str]:
        return {**self._environment, **request.env, **step.env}

    def _name(self, index: int) -> str:
        if index == CHECKOUT or self._request is None:
            return "checkout"
        return self._request.steps[index].name

    def _tell(self, event: Event, index: int = 0, exit_code: int = 0, guest_at: int | None = None) -> None:
        self._worker.send(encode(Told(event, index, exit_code, guest_at)))

    # What the runner is told

    def _send(self, data: bytes) -> None:
        self._unsent += data
        self._flush()

    def _flush(self) -> None:
        """Send what the guest takes; a guest that does not read costs memory of at most one request."""
        if self._port is None or self._port.fileno() < 0:
            return
        try:
            self._unsent = self._unsent[self._port.send(self._unsent) :]
        except BlockingIOError:
            pass
        except (BrokenPipeError, ConnectionResetError):
            self._unsent = b""
        self._poll.modify(self._port, select.POLLIN | (select.POLLOUT if self._unsent else 0))
