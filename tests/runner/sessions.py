"""A real session in a process of its own, and the two ends that it works between: the worker's and a guest's.

The logs are pipes, so that a test sees what is written as it is written.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import select
import shlex
import signal
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from solstice.host.channel import Channel, Closed
from solstice.model import JobRequest
from solstice.protocol.session import Begin, Event, Told, decode_for_worker, encode
from solstice.runner.joblog import CONSOLE_LIMIT, LOG_LIMIT, JobLog
from solstice.runner.session import Session

SECONDS = 15.0


class Served:
    """A session that has its sockets in `folder`; what it is told is sent on `channel`."""

    def __init__(self, folder: Path, limit: int = LOG_LIMIT) -> None:
        self._folder = folder
        self._port = _listening(folder / "port")
        self._console_port = _listening(folder / "console")
        self._log, log = os.pipe()
        self._console, console = os.pipe()
        self._socket, theirs = socket.socketpair()
        self.channel = Channel(self._socket)
        # not `spawn`: the worker forks its session as well
        self.process = multiprocessing.get_context("fork").Process(
            target=self._serve, args=(theirs, JobLog(log, limit), JobLog(console, CONSOLE_LIMIT))
        )
        self.process.start()
        theirs.close()
        os.close(log)
        os.close(console)

    def _serve(self, theirs: socket.socket, log: JobLog, console: JobLog) -> None:
        self.channel.close()
        Session(Channel(theirs), self._port, self._console_port, log, console).run()

    def begin(
        self,
        request: JobRequest | None = None,
        environment: Mapping[str, str] | None = None,
        peer: int = os.getuid(),
    ) -> None:
        self.channel.send(encode(Begin((peer,), request, environment)))

    def connect(self, name: str) -> socket.socket:
        """A connection as QEMU makes it, to `port` or `console`."""
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(SECONDS)
        sock.connect(str(self._folder / name))
        return sock

    def told(self) -> Told:
        """The next event that the worker is told."""
        message = self.channel.receive(time.monotonic() + SECONDS)
        assert message is not None, f"told nothing within {SECONDS:.0f} s"
        return decode_for_worker(message)

    def read_log(self) -> bytes:
        """What is in the log now, up to a page, as soon as there is something."""
        return _read(self._log)

    def read_console_log(self) -> bytes:
        return _read(self._console)

    def pause(self) -> None:
        """Let the session do nothing until `resume`: what comes meanwhile, it finds all at once."""
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)

    def resume(self) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGCONT)

    def end(self) -> tuple[list[Event], bytes]:
        """End it as the worker does; the events that had not been taken yet, and the rest of the log."""
        self._socket.shutdown(socket.SHUT_WR)
        events = []
        while True:
            try:
                events.append(self.told().event)
            except Closed:
                break
        log = b""
        while data := self.read_log():
            log += data
        self.process.join(SECONDS)
        assert self.process.exitcode == 0
        return events, log

    def close(self) -> None:
        """At the end of a test, however that came."""
        self.process.kill()
        self.process.join()
        self.process.close()
        self.channel.close()
        self._port.close()
        self._console_port.close()
        os.close(self._log)
        os.close(self._console)


@dataclass(frozen=True, slots=True)
class Said:
    """One message to the guest."""

    verb: str
    fields: Mapping[str, str]
    exports: str = ""
    script: str = ""


class Guest:
    """The runner's side of the port, without a guest around it; owns its connection."""

    def __init__(self, port: socket.socket) -> None:
        self._port = port
        self._stream = port.makefile("rb")
        self.nonce = ""
        self.guard = ""

    def print(self, output: bytes) -> None:
        self._port.sendall(output)

    def record(self, **fields: object) -> None:
        self.print(record(self.nonce, **fields))

    def greet(self, **more: object) -> None:
        """Say hello and take the two secrets."""
        self.record(type="hello", protocol=1, system="Linux 6.1 x86_64", **more)
        welcome = self.heard()
        assert welcome.verb == "welcome"
        self.nonce, self.guard = welcome.fields["nonce"], welcome.fields["guard"]

    def heard(self) -> Said:
        """The next message from the host."""
        fields: dict[str, str] = {}
        while "verb" not in fields:
            name, _, value = self._stream.readline().decode().partition("=")
            fields[name] = shlex.split(value)[0]
        exports = self._stream.read(int(fields.get("env_size", "0"))).decode()
        script = self._stream.read(int(fields.get("script_size", "0"))).decode()
        return Said(fields["verb"], fields, exports, script)

    def close(self) -> None:
        self._stream.close()
        self._port.close()


def record(key: str, **fields: object) -> bytes:
    return b"\x1e" + key.encode() + json.dumps(fields).encode() + b"\n"


def _listening(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen(2)
    return sock


def _read(descriptor: int) -> bytes:
    assert select.select([descriptor], [], [], SECONDS)[0], f"nothing was logged within {SECONDS:.0f} s"
    return os.read(descriptor, 4096)
