"""Arms race points and waits until a process has stopped at one; see solstice/host/racepoints.py.

Children inherit the folder only if they are spawned while `SOLSTICE_RACE` names it.
"""

from __future__ import annotations

import os
import select
import time
from pathlib import Path

import psutil

from solstice.host import racepoints

PATIENCE = 60.0


class Race:
    """The points of one folder, which it makes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        os.mkfifo(folder / racepoints.FIFO)
        # for writing as well, so that it never comes to its end
        self._fifo = os.open(folder / racepoints.FIFO, os.O_RDWR | os.O_CLOEXEC)
        self._heard = b""

    def arm(self, point: str) -> None:
        """The next process that reaches `point` stops there."""
        assert point in racepoints.POINTS
        (self.folder / point).touch()

    def reached(self) -> tuple[str, int]:
        """The next point that a process stopped at, and its pid."""
        while b"\n" not in self._heard:
            assert select.select([self._fifo], [], [], PATIENCE)[0], "no armed point was reached"
            self._heard += os.read(self._fifo, 4096)
        line, _, self._heard = self._heard.partition(b"\n")
        point, pid = line.decode().split()
        # It says so before it stops: a SIGCONT that came in between would be lost, and it would stand there for ever.
        deadline = time.monotonic() + PATIENCE
        while psutil.Process(int(pid)).status() != psutil.STATUS_STOPPED:
            assert time.monotonic() < deadline, f"{pid} did not stop at {point}"
            time.sleep(0.001)
        return point, int(pid)

    def close(self) -> None:
        os.close(self._fifo)
