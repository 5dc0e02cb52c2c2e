"""Finds the processes that a test run has left behind.  Called by conftest when the last fixture is gone.

A process belongs to this run if it carries the run's marker in its environment, if it descends from pytest, or if it
has a file or folder of the run open or named on its command line.  The last is for those that start with a fresh
environment and outlive their parents on purpose: workers, and QEMU.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MARKER = "SOLSTICE_TEST_SESSION"
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process stands among the others."""

    parent: int
    session: int


@dataclass(frozen=True, slots=True)
class Leftover:
    """One process, as it was when it was found."""

    pid: int
    command: str

    def __str__(self) -> str:
        return f"{self.pid} {self.command}"

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


def find(root: Path) -> list[Leftover]:
    """Every live process of the run whose folder is `root`, but pytest itself; a zombie is not alive."""
    processes = live()
    marker = f"{MARKER}={os.environ[MARKER]}".encode()
    found = []
    for pid in processes.keys() - {os.getpid()}:
        command = _read(pid, "cmdline")
        mine = (
            _descends(pid, processes)
            or marker in environment(pid).split(b"\0")
            or os.fsencode(root) in command
            or _has_open(pid, root)
        )
        if mine:
            found.append(Leftover(pid, command.replace(b"\0", b" ").decode(errors="replace").strip()))
    return found


def live() -> dict[int, Place]:
    """Every process of the host that is no zombie, by pid."""
    places = {}
    for entry in _PROC.iterdir():
        if entry.name.isdecimal():
            # the name, in parentheses, may hold anything: what counts begins behind the last one
            words = _read(int(entry.name), "stat").rpartition(b")")[2].split()
            if words and words[0] not in (b"Z", b"X"):
                places[int(entry.name)] = Place(parent=int(words[1]), session=int(words[3]))
    return places


def environment(pid: int) -> bytes:
    """The environment of a process, its variables ended by NUL; empty if it is gone or not ours to look at."""
    return _read(pid, "environ")


def _descends(pid: int, processes: dict[int, Place]) -> bool:
    while pid in processes:
        pid = processes[pid].parent
        if pid == os.getpid():
            return True
    return False


def _has_open(pid: int, root: Path) -> bool:
    with suppress(OSError):
        for link in (_PROC / str(pid) / "cwd", *(_PROC / str(pid) / "fd").iterdir()):
            with suppress(OSError):
                if link.readlink().is_relative_to(root):
                    return True
    return False


def _read(pid: int, name: str) -> bytes:
    """A file of a process; empty if the process is gone or is not ours to look at."""
    try:
        return (_PROC / str(pid) / name).read_bytes()
    except OSError:
        return b""
