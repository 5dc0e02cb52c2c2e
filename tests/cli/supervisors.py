"""The control socket of a supervisor with hand-written answers, and the answers, as view.py, why.py and steering.py
make them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from solstice.protocol.lines import Message
from solstice.supervisor.control import Command, Control

ROOT = Path(__file__).resolve().parents[2]
JOB = "7f3a91c2-0000-4000-8000-000000000000"
OTHER = "19be04d7-0000-4000-8000-000000000000"
NOON = 1_790_000_000.0
DIGEST = "sha256:" + "0f" * 32

Answer = Callable[[Message], Any]


class Supervisor:
    """Answers at `run_dir` until `close`; `asked` has every message, in order."""

    def __init__(self, run_dir: Path, answers: Mapping[str, Answer]) -> None:
        self.run_dir = run_dir
        self.asked: list[Message] = []
        self._loop = asyncio.new_event_loop()
        self._control = Control(run_dir / "control.sock", {name: self._command(each) for name, each in answers.items()})
        self._loop.run_until_complete(self._control.start())
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def _command(self, answer: Answer) -> Command:
        async def command(asked: Message) -> Any:
            self.asked.append(asked)
            return answer(asked)

        return command

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._control.close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


def arguments(run_dir: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "solstice", *words, "--run-dir", str(run_dir)]


def solstice(run_dir: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of an operator, in a pipe."""
    return subprocess.run(
        arguments(run_dir, *words),
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


STATUS: dict[str, Any] = {
    "version": "0.1.0",
    "pid": 42,
    "name": "metal-1",
    "owner": "0123456789ab",
    "state_dir": "/var/lib/solstice",
    "backend": "libvirt",
    "domain_type": "kvm",
    "broker": "up",
    "broker_why": "connected to amqp://me@broker:5672/",
    "intake": "taking jobs",
    "store": "ok",
    "paused": False,
    "capacity": {
        "slots": {"used": 1, "limit": 4},
        "booting": {"used": 1, "limit": 2},
        "cpus": {"used": 2, "limit": 6.5},
        "memory_mib": {"used": 512, "limit": 6656},
        "disk_mib": {"free": 34816, "promised": 10240, "floor": 2048},
        "pending": {"used": 2, "limit": 100},
    },
    "labels": [
        {
            "image": "debian-12",
            "labels": ["debian", "debian-12"],
            "state": "ready",
            "used": 1,
            "limit": 4,
            "pending": 2,
            "paused": False,
            "quarantine": None,
        },
        {
            "image": "illumos",
            "labels": ["illumos"],
            "state": "fetching 43%",
            "used": 0,
            "limit": 2,
            "pending": 0,
            "paused": True,
            "quarantine": None,
        },
        {
            "image": "tiny",
            "labels": ["tiny"],
            "state": "ready",
            "used": 0,
            "limit": 4,
            "pending": 0,
            "paused": False,
            "quarantine": "tiny is in quarantine, 3 attempts in a row failed by this host: none",
        },
    ],
    "active": [
        {
            "job": JOB,
            "label": "debian",
            "attempt": 1,
            "phase": "booting",
            "pid": 4711,
            "seconds": 192.4,
            "stopping": None,
        }
    ],
    "pending": [
        {
            "job": OTHER,
            "label": "debian",
            "place": 1,
            "priority": 7,
            "seconds": 3.04,
            "resource": "booting",
            "why": "as many VMs boot as may, 1 (MAX_BOOTING)",
        }
    ],
}

FAILED: dict[str, Any] = {
    "job": {
        "seq": 1,
        "id": JOB,
        "label": "debian",
        "image": "debian-12",
        "state": "failed",
        "cause": "user.step_failed",
        "detail": "step 'make\x1b[2J' ended with exit status 5",
        "exit_code": 5,
        "counted": 1,
        "accepted_at": NOON,
        "started_at": NOON + 90,
        "ended_at": NOON + 97.2,
        "request": {
            "request_id": JOB,
            "runs_on": "debian",
            "repo_url": "https://forge/me/it.git",
            "commit_sha": "1" * 40,
            "priority": 7,
            "concurrency_group": "deploy",
        },
    },
    "attempts": [
        {
            "job": JOB,
            "attempt": 1,
            "phase": "done",
            "backend": "libvirt",
            "host": "metal-1",
            "outcome": "accepted",
            "counted": False,
            "cause": "infra.host_stopping",
            "detail": "the supervisor was asked to stop",
            "started_at": NOON + 1,
            "timings": {"preparing": NOON + 1, "cleaning": NOON + 1.5, "done": NOON + 2.5},
            "ended_at": NOON + 2.5,
            "steps": [],
        },
        {
            "job": JOB,
            "attempt": 2,
            "image_digest": DIGEST,
            "phase": "cleaning",
            "backend": "libvirt",
            "host": "metal-1",
            "outcome": "failed",
            "counted": True,
            "cause": "user.step_failed",
            "detail": "step 'make' ended with exit status 5",
            "started_at": NOON + 90,
            "timings": {"preparing": NOON + 90, "booting": NOON + 90.3, "running": NOON + 95, "cleaning": NOON + 97.2},
            "ended_at": None,
            "steps": [
                {"name": "checkout", "exit_code": 0, "seconds": 0.4},
                {"name": "make", "exit_code": 5, "seconds": 1.8},
            ],
        },
    ],
    "records": f"/var/lib/solstice/jobs/{JOB}",
}

WAITS: dict[str, Any] = {
    "job": JOB,
    "state": "accepted",
    "why": "all slots of this host are taken, 2 (MAX_CONCURRENCY)",
    "place": 3,
    "resource": "slots",
    "starts_in": 40.4,
}
