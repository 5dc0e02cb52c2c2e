"""A host for guest.sh in a test: the other end of a pseudo terminal, which is a serial port as far as the guest sees.

`Peer` starts the real script under one shell, and ends it, and every process that it left, when it is closed.
"""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import solstice.runner
from solstice.protocol import runner
from solstice.protocol.runner import Decoder, Event, Hello, Output, StepEnd, StepStart

GUEST = Path(solstice.runner.__file__).with_name("guest.sh")
NONCE = "a1" * 16
GUARD = "b2" * 16
TIMEOUT = 15.0


class Peer:
    """One start of the runner; `state` is what the guest keeps over a reboot, `path` its PATH.

    `transcript` has every byte that the guest sent, `times` what it said of its clock, and with which kind of event.
    """

    def __init__(self, state: Path, path: str, environment: Mapping[str, str] | None = None) -> None:
        self._master, self._slave = pty.openpty()
        self._decoder = Decoder(NONCE, GUARD)
        self._events: list[Event] = []
        self._output = bytearray()
        self.transcript = bytearray()
        self.times: list[tuple[type[Event], int | None]] = []
        # TAG is how the leftovers are found: a step has a session of its own
        self._tag = f"SOLSTICE_TEST_PEER={os.getpid()}.{self._master}.{time.monotonic_ns()}"
        name, _, value = self._tag.partition("=")
        self.process = subprocess.Popen(
            ["sh", GUEST, "run", os.ttyname(self._slave), state],
            executable=shutil.which("sh", path=path),
            stdin=subprocess.DEVNULL,
            env={"PATH": path, "HOME": str(state.parent), name: value, **(environment or {})},
            start_new_session=True,
        )
        # The slave stays open here: otherwise the master would see an end before the guest opens it.

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        for pid in self._leftovers():
            with suppress(ProcessLookupError):  # it may end by itself as soon as it is found
                os.kill(pid, signal.SIGKILL)
        os.close(self._master)
        os.close(self._slave)

    def _leftovers(self) -> list[int]:
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if self._tag.encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def send(self, data: bytes) -> None:
        """Give it all to the guest, and take what the guest says meanwhile, as the session does."""
        os.set_blocking(self._master, False)
        deadline = time.monotonic() + TIMEOUT
        while data:
            readable, writable, _ = select.select([self._master], [self._master], [], deadline - time.monotonic())
            if readable:
                self._read()
            if writable:
                data = data[os.write(self._master, data[:4096]) :]

    def event(self) -> Event:
        """The next event that is neither output nor a step's start; without its time."""
        deadline = time.monotonic() + TIMEOUT
        while not self._events:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self._master], [], [], max(0.0, left))
            assert ready, f"nothing in {TIMEOUT} s; so far: {bytes(self._output[-2000:])!r}"
            self._read()
        return self._events.pop(0)

    def wait_output(self, wanted: bytes) -> None:
        """Return as soon as `wanted` is in the output."""
        deadline = time.monotonic() + TIMEOUT
        while wanted not in self._output:
            assert select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))[0], self._output
            self._read()

    def output(self) -> bytes:
        """All output since the last call, up to the last event that was taken (or later)."""
        taken = bytes(self._output)
        self._output.clear()
        return taken

    def welcome(self) -> Hello:
        """Take the hello and answer it."""
        hello = self.event()
        assert isinstance(hello, Hello)
        self.send(runner.welcome(NONCE, GUARD))
        return hello

    def step(self, script: str, env: Mapping[str, str] | None = None, index: int = 0) -> tuple[Event, bytes]:
        """Run one step to its end: the event, and the output."""
        self.send(runner.step(index, env or {}, script))
        event = self.event()
        return event, self.output()

    def _read(self) -> None:
        data = os.read(self._master, 1 << 16)
        self.transcript += data
        for event in self._decoder.feed(data):
            if isinstance(event, Output):
                self._output += event.data
            else:
                self._keep(event)

    def _keep(self, event: Event) -> None:
        if isinstance(event, Hello | StepStart | StepEnd):
            self.times.append((type(event), event.guest_at))
            event = replace(event, guest_at=None)
        if not isinstance(event, StepStart):
            self._events.append(event)
