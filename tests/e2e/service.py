"""A running `solstice serve` as a test sees it: its log, its control socket, its processes, what it left behind."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from solstice.broker.enqueue import ResultListener, publish_request
from solstice.broker.topology import Topology
from solstice.host.channel import Channel
from solstice.protocol import attach, jobrequest
from tests.real.libvirtd import virsh

ROOT = Path(__file__).resolve().parents[2]
Event = dict[str, Any]

LOOK_AGAIN = 0.1


class Service:
    """One state directory below `folder`; `start` may be called again after an end, as a host would.

    On libvirt with `image`, on noop without.  `image_map` is the text of another image map than the one of `tiny`.
    """

    def __init__(
        self, folder: Path, amqp_url: str, image: Path | None, image_map: str | None = None, **environment: str
    ) -> None:
        self.amqp_url = amqp_url
        self.state = folder / "state"
        self.run = folder / "run"
        self.image = folder / "tiny.qcow2"
        self._map = folder / "map.yaml"
        self._lines: list[str] = []
        self._more = threading.Condition()
        if image is not None:
            shutil.copyfile(image, self.image)
            self.image.chmod(0o444)
        self._map.write_text(
            image_map
            or f"default_label: tiny\nimages:\n  tiny:\n    source: {self.image}\n    local_path: {self.image}\n"
        )
        backend = "noop" if image is None else "libvirt"
        defaults = {
            "SOLSTICE_BACKEND": backend,
            "LIBVIRT_DOMAIN_TYPE": "qemu",
            "CAPACITY_MAP": "tiny=2",
            "MAX_ATTEMPTS": "1",
        }
        self.environment = {
            "PATH": os.environ["PATH"],
            "AMQP_URL": amqp_url,
            "ORCH_CONFIG": str(self._map),
            "SOLSTICE_STATE_DIR": str(self.state),
            "SOLSTICE_RUN_DIR": str(self.run),
            **{name: value for name, value in os.environ.items() if name.startswith("SOLSTICE_TEST")},
            **defaults,
            **environment,
        }

    def start(self) -> None:
        """Start it and wait until it takes jobs."""
        self.launch()
        self.said(r"connected to amqp")

    def launch(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "solstice", "serve"],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._lines.clear()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def end(self, number: signal.Signals = signal.SIGTERM, seconds: float = 60.0) -> int:
        """Signal it and wait for its end; the exit status."""
        self.process.send_signal(number)
        return self.wait(seconds)

    def wait(self, seconds: float = 60.0) -> int:
        status = self.process.wait(seconds)
        self._read_last_words()
        return status

    def _read_last_words(self) -> None:
        """Until its log has been read.  That ends with it, unless it left workers behind: they have the same stderr."""
        while self._reader.is_alive() and self._is_unread():
            self._reader.join(LOOK_AGAIN)
        self._reader.join(LOOK_AGAIN)  # what has been read by now is told a moment later

    def _is_unread(self) -> bool:
        assert self.process.stdout is not None
        with suppress(ValueError):  # it has been closed at its end just now
            return bool(select.select([self.process.stdout], [], [], 0)[0])
        return False

    def close(self) -> None:
        """At the end of a test, however that came."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            # a second one hurries: whatever still runs is of no interest any more; two that wait at once are one
            with suppress(AssertionError):
                self.said("stopping", seconds=5.0)
            self.end(signal.SIGTERM)

    # What it says

    def said(self, pattern: str, seconds: float = 60.0, times: int = 1) -> str:
        """The first line of the log that matches, of `times` that must, as soon as they are there."""
        deadline = time.monotonic() + seconds
        with self._more:
            while len(found := [line for line in self._lines if re.search(pattern, line)]) < times:
                if not self._more.wait(max(0.0, deadline - time.monotonic())):
                    raise AssertionError(f"never said {pattern!r}:\n" + "".join(self._lines[-40:]))
            return found[0]

    @property
    def text(self) -> str:
        with self._more:
            return "".join(self._lines)

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                with self._more:
                    self._lines.append(line)
                    self._more.notify_all()

    def ask(self, command: str, **fields: Any) -> Any:
        """The answer of the control socket, within five seconds."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(self.run / "control.sock"))
            channel = Channel(sock.dup())
            channel.send({"v": 1, "cmd": command, **fields})
            answer = channel.receive(time.monotonic() + 5.0)
            channel.close()
        assert answer is not None, "no answer within five seconds"
        assert answer["ok"], answer
        return answer["result"]

    def command(self, *words: str, seconds: float = 120.0) -> subprocess.CompletedProcess[str]:
        """`solstice WORDS` as a person would say it beside this service."""
        return subprocess.run(
            [sys.executable, "-m", "solstice", *words],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    # Jobs

    def submit(self, *scripts: str, **fields: Any) -> str:
        """Send a request as `solstice enqueue` does; its id."""
        request = jobrequest.new_request(steps=[{"run": script} for script in scripts], **fields)
        publish_request(self.amqp_url, Topology(), jobrequest.to_document(request))
        return request.request_id

    def outcome(self, *scripts: str, during: Callable[[str], None] | None = None, **fields: Any) -> Event:
        """Submit a job, do something `during` it, and give its terminal event."""
        with ResultListener(self.amqp_url) as listener:
            job = self.submit(*scripts, **fields)
            if during is not None:
                during(job)
            event = listener.wait(job, time.monotonic() + 240, lambda _event: None)
        assert event is not None, f"no result within four minutes:\n{self.text}"
        return dict(event)

    def log(self, job: str, attempt: int = 1, name: str = "log") -> str:
        return (self.state / "jobs" / job / str(attempt) / name).read_text(errors="replace")

    def done(self, job: str) -> None:
        """Wait until the host is free of the job's VM."""
        self.said(rf"attempt is done .*job={job}")

    # Processes

    def worker(self, job: str) -> psutil.Process:
        """The worker of a job that is active."""
        (pid,) = [active["pid"] for active in self.ask("status")["active"] if active["job"] == job]
        return psutil.Process(pid)

    def child(self, title: str) -> psutil.Process:
        """The supervisor's child whose title begins so."""
        (found,) = [child for child in psutil.Process(self.process.pid).children() if _title(child).startswith(title)]
        return found

    # What is left

    def domains(self) -> list[str]:
        """What libvirt has of this host; nothing on noop."""
        if self.environment["SOLSTICE_BACKEND"] != "libvirt":
            return []
        owner = (self.state / "owner").read_text().strip()
        return [name for name in virsh("list", "--all", "--name").stdout.split() if owner in name]

    def assert_nothing_left(self, *jobs: str) -> None:
        """No domain, file, socket or process of these jobs."""
        domains = virsh("list", "--all", "--name").stdout
        for job in jobs:
            assert job not in domains
            assert not [process for process in psutil.process_iter() if job in _words(process)]
            assert not [process for process in psutil.process_iter() if job[:8] in _title(process)]
            left = {path.name for path in (self.state / "jobs" / job).rglob("*") if path.is_file()}
            assert left <= {"log", "console.log", attach.CLOSED}, left
        assert not list(self.state.rglob("vm"))
        assert not [path for path in self.state.rglob("*") if path.is_socket()]


def _title(process: psutil.Process) -> str:
    words = _words(process)
    return words if words.startswith("solstice: ") else ""


def _words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""


def dead_letters(url: str) -> list[tuple[Mapping[str, Any], bytes]]:
    """Every message of the dead-letter queue, with its headers."""
    import pika  # noqa: PLC0415 - only these tests read the queue

    found = []
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    while True:
        method, properties, body = channel.basic_get(Topology().dead_letter_queue, auto_ack=True)
        if method is None:
            break
        found.append((properties.headers, body))
    connection.close()
    return found


def raw_publish(url: str, *bodies: bytes) -> None:
    """Send bodies that no client of ours would, and wait for the broker's confirms."""
    import pika  # noqa: PLC0415

    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.confirm_delivery()
    for body in bodies:
        channel.basic_publish(Topology().exchange, Topology().routing_key, body, mandatory=True)
    connection.close()


def document(**fields: Any) -> dict[str, Any]:
    """A valid request as a plain document, with some fields replaced."""
    plain = {"schema_version": "jobrequest.v1", "request_id": str(uuid.uuid4()), "steps": [{"run": "true"}]}
    return {**plain, **fields}


def encoded(**fields: Any) -> bytes:
    return json.dumps(document(**fields)).encode()
