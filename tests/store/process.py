"""A real store process for the tests, spoken to as the supervisor does; and the messages that the tests send."""

from __future__ import annotations

import os
import signal
import socket
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from solstice.host.channel import Channel
from solstice.host.processes import spawn
from solstice.protocol.lines import Message, encode

PATIENCE = 20.0
HOST = "0123456789ab"


class Store:
    """One store process, of the host `host`, and our end of its channel."""

    def __init__(self, host: str = HOST) -> None:
        self.host = host
        self.sock, theirs = socket.socketpair()
        with theirs:
            self.process = spawn("solstice.store", theirs)
        self.channel = Channel(self.sock)
        self._id = 0

    def write(self, messages: Sequence[Message]) -> list[int]:
        """Write all messages at once, and return the ids they were given."""
        ids = [self._id + n for n in range(len(messages))]
        self._id += len(messages)
        self.sock.sendall(b"".join(encode({**message, "id": n}) for n, message in zip(ids, messages, strict=True)))
        return ids

    def read(self) -> Message:
        reply = self.channel.receive(time.monotonic() + PATIENCE)
        assert reply is not None, "no reply in time"
        return reply

    def ask(self, op: str, **fields: Any) -> Message:
        (number,) = self.write([{"op": op, **fields}])
        reply = self.read()
        assert reply["id"] == number
        return reply

    def result(self, op: str, **fields: Any) -> Any:
        reply = self.ask(op, **fields)
        assert reply["ok"], reply
        return reply["result"]

    def configure(self, where: Path | str) -> None:
        url = where if isinstance(where, str) else f"sqlite:///{where}"
        (number,) = self.write([{"op": "configure", "url": url, "host": self.host}])
        reply = self.read()
        if "upgrading" in reply:
            reply = self.read()
        assert reply == {"id": number, "ok": True, "result": {}}

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE)

    def stop(self) -> None:
        """Freeze the process, and return when it is frozen."""
        self.process.send_signal(signal.SIGSTOP)
        _, status = os.waitpid(self.process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> int:
        """Close the channel; the exit status of the process."""
        self.channel.close()
        return self.process.wait(PATIENCE)


@contextmanager
def running_store(where: Path | str | None = None, host: str = HOST) -> Iterator[Store]:
    """A store process, configured for a file or a URL if there is one; no longer there afterwards."""
    store = Store(host)
    try:
        if where is not None:
            store.configure(where)
        yield store
    finally:
        store.channel.close()
        store.process.kill()
        store.process.wait(PATIENCE)


def new_job() -> str:
    return str(uuid.uuid4())


def accept(job: str, label: str = "ubuntu-22.04", at: float = 1.0) -> Message:
    request = {"schema_version": "jobrequest.v1", "request_id": job, "runs_on": label, "source": "a test"}
    return {"op": "accept", "request": request, "label": label, "image": f"{label}-image", "at": at}


def start(job: str, attempt: int = 1, at: float = 2.0) -> Message:
    return {"op": "start", "job": job, "attempt": attempt, "backend": "noop", "host": HOST, "at": at}


def finish(job: str, state: str = "succeeded", attempt: int = 1, cause: str | None = None, at: float = 9.0) -> Message:
    steps = [{"name": "build", "exit_code": 0, "seconds": 1.5}] if attempt else []
    return {
        "op": "finish",
        "job": job,
        "attempt": attempt,
        "state": state,
        "cause": cause,
        "detail": "",
        "exit_code": 0 if state == "succeeded" else None,
        "steps": steps,
        "at": at,
    }


def release(job: str, attempt: int = 1, counted: bool = True, at: float = 5.0) -> Message:
    return {
        "op": "release",
        "job": job,
        "attempt": attempt,
        "cause": "infra.worker_crashed" if counted else "infra.host_stopping",
        "detail": "why",
        "counted": counted,
        "at": at,
    }
