"""Shows a job's log as it grows.

Polls: inotify is Linux's only, and a poll works over every file system.  What a guest printed goes to a terminal
without the control characters that could drive it; into a pipe or a file it goes as it is.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

INTERVAL = 0.1
_CHUNK = 1 << 16
# Tab, newline, carriage return and colours stay; everything else that a terminal obeys becomes visible.
# A C2 at the end of a piece too: the guest may send the byte that makes a control of it in a piece of its own.
_HARMFUL = re.compile(rb"\x1b(?!\[[0-9;]*m)|[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]|\xc2(?:[\x80-\x9f]|\Z)")


def harmless(data: bytes) -> bytes:
    """`data` with each harmful control character as `\\xNN`."""
    return _HARMFUL.sub(lambda found: b"".join(b"\\x%02x" % byte for byte in found[0]), data)


def newest_log(records: Path, name: str = "log") -> Path | None:
    """The log of a job's newest attempt, if there is one; `records` is the job's directory."""
    attempts = [path for path in records.glob(f"*/{name}") if path.parent.name.isdigit()]
    return max(attempts, key=lambda path: int(path.parent.name), default=None)


def follow(records: Path, is_over: Callable[[], bool], name: str = "log", out: BinaryIO | None = None) -> None:
    """Print the newest log of a job until `is_over`, and then what is left of it."""
    printer = Printer(out or sys.stdout.buffer)
    while True:
        over = is_over()
        printer.show(newest_log(records, name))
        if over:
            return
        time.sleep(INTERVAL)


@contextlib.contextmanager
def reader_may_leave() -> Iterator[None]:
    """Ends quietly when nobody reads our output any more, as after `| head`; for those who wait for more than that.

    Standard output then goes to nowhere: the interpreter would fail at its end with what is still in the buffer.
    """
    try:
        yield
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


class Printer:
    """Prints a log from where it stopped the last time."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._clean = harmless if out.isatty() else bytes
        self._path: Path | None = None
        self._position = 0

    def show(self, path: Path | None) -> None:
        """What `path` has beyond what was shown; of another file than before, from its beginning."""
        if path is None:
            return
        if path != self._path:
            self._path, self._position = path, 0
        with path.open("rb") as log:
            log.seek(self._position)
            while data := log.read(_CHUNK):
                self._out.write(self._clean(data))
                self._position += len(data)
        self._out.flush()
