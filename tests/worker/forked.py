"""A real fork server and the workers it forks, spoken to directly, as a supervisor of any version might."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import signal
import socket
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from solstice.host import journal, processes
from solstice.host.channel import Channel, Closed
from solstice.model import AttemptId, Backend, DiskFormat, JobRequest, Step, VmSpec
from solstice.protocol import attach, order
from solstice.protocol.lines import Message

OWNER = "0123456789ab"
PATIENCE = 20.0
FOR_EVER = "3600"
# What a noop attempt reports when nobody disturbs it, in order from number 0.
WHOLE = ["identity", "preparing", "booting", "running", "outcome", "cleaning", "done"]


def words(messages: list[Message]) -> list[str]:
    """Each message in a word: its type, or the phase that it tells of."""
    return [message["report"]["phase"] if message["type"] == "phase" else message["type"] for message in messages]


def hear(channel: Channel, last: str) -> list[Message]:
    """Every message up to the one whose word is `last`."""
    messages: list[Message] = []
    while not messages or words(messages)[-1] != last:
        message = channel.receive(time.monotonic() + PATIENCE)
        assert message is not None, f"no {last} after {words(messages)}"
        messages.append(message)
    return messages


def rest(channel: Channel) -> list[Message]:
    """Every message up to the end of the stream."""
    messages = []
    try:
        while (message := channel.receive(time.monotonic() + PATIENCE)) is not None:
            messages.append(message)
    except Closed:
        return messages
    raise AssertionError(f"no end of the stream after {words(messages)}")


def noop_order(folder: Path, seconds: str = "0", job_record: Path | None = None) -> order.Run:
    """An attempt whose VM runs for so many seconds."""
    root = folder / "noop"
    root.mkdir(exist_ok=True)
    id = AttemptId(OWNER, str(uuid.uuid4()), 1)
    record = (job_record or folder / id.short) / "1"
    vm = VmSpec(id, "label", Path("/x"), DiskFormat.RAW, record / "vm")
    request = JobRequest(id.job, "label", (Step("one", "true"),), env={"NOOP_SECONDS": seconds})
    hypervisor = order.Hypervisor(Backend.NOOP, uri=str(root))
    return order.Run(hypervisor, vm, request, order.Limits(5, 5, 5), record)


def clean_order(what: order.Run) -> order.Clean:
    return order.Clean(what.hypervisor, what.vm.id, what.vm.directory)


def leftovers(what: order.Run) -> list[Path]:
    """What is left on the host of an attempt, but for its record."""
    return [path for path in (Path(what.hypervisor.uri) / what.vm.id.name, what.vm.directory) if path.exists()]


@dataclass
class Forked:
    """A worker that was given `what`; `pipe` is the supervisor's end of the link that it was born with."""

    what: order.Run
    pid: int
    pidfd: int
    pipe: Channel

    @property
    def journal(self) -> Path:
        return self.what.record / attach.JOURNAL

    @property
    def socket(self) -> Path:
        return self.what.record / attach.SOCKET

    def said(self, after: int = attach.FROM_THE_START) -> list[Message]:
        """What the journal has."""
        return journal.read(self.journal, after)

    def connect(self) -> Channel:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(str(self.socket))
        except OSError:
            sock.close()
            raise
        return Channel(sock)

    def attach(self, after: int = attach.FROM_THE_START) -> Channel:
        channel = self.connect()
        channel.send(attach.encode(after))
        return channel

    def wait(self) -> None:
        """Until the worker has ended."""
        assert select.select([self.pidfd], [], [], PATIENCE)[0], f"worker {self.pid} does not end"

    def close(self) -> None:
        """Let nothing of it run on: without its supervisor it would."""
        self.pipe.close()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        os.close(self.pidfd)


class Forks:
    """The fork server; `log` is where its children's errors go."""

    def __init__(self, log: int = 2) -> None:
        self._sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = processes.spawn("solstice.worker.forkserver", theirs, log)
        theirs.close()
        self._tokens = itertools.count()
        self._pids: dict[int, int] = {}
        self._statuses: dict[int, int] = {}
        self._workers: list[Forked] = []
        self._open = True

    def run(self, what: order.Run, *more: Message) -> Forked:
        """A worker that carries out `what`, and that is told `more` before it is born."""
        pid, pidfd, pipe = self._fork(what, *more)
        worker = Forked(what, pid, pidfd, pipe)
        self._workers.append(worker)
        return worker

    def errand(self, what: order.Order) -> list[Message]:
        """All that a worker says that carries out something else than an attempt."""
        pipe = self.begin(what)
        messages = rest(pipe)
        pipe.close()
        return messages

    def begin(self, what: order.Order) -> Channel:
        """The pipe of a worker on an errand."""
        _pid, pidfd, pipe = self._fork(what)
        os.close(pidfd)
        return pipe

    def status(self, worker: Forked) -> int:
        """How it ended; waits for that."""
        while worker.pid not in self._statuses:
            self._answer()
        return self._statuses[worker.pid]

    def close(self) -> None:
        """Let the fork server end, as it does when its supervisor has."""
        if self._open:
            self._open = False
            self._sock.close()
            self._process.wait(PATIENCE)

    def forget(self) -> None:
        """End with the workers that a test left."""
        for worker in self._workers:
            worker.close()
        self.close()

    def _fork(self, what: order.Order, *more: Message) -> tuple[int, int, Channel]:
        ours, theirs = socket.socketpair()
        pipe = Channel(ours)
        for message in (order.encode(what), *more):
            pipe.send(message)
        socket.send_fds(self._sock, [json.dumps({"token": next(self._tokens)}).encode()], [theirs.fileno()])
        theirs.close()
        while (born := self._answer()) is None:
            pass
        return *born, pipe

    def _answer(self) -> tuple[int, int] | None:
        """The pid and the pidfd of who was born; who ended is noted."""
        assert select.select([self._sock], [], [], PATIENCE)[0], "the fork server does not answer"
        data, descriptors, _flags, _address = socket.recv_fds(self._sock, 4096, 1)
        answer = json.loads(data)
        if "pid" in answer:
            self._pids[answer["token"]] = answer["pid"]
            return answer["pid"], descriptors[0]
        self._statuses[self._pids[answer["token"]]] = answer["status"]
        return None
