"""The compressed bytes of one pull: a file that grows at its end and is read from its start at the same time.

The file is the queue between the threads of a pull: whoever is slower reads behind from the page cache, nobody waits
for anybody, and memory does not depend on how far they are apart.  What is read here is also there after a restart.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time

from solstice.errors import Cause, InfraError
from solstice.images.fetch import READ_SIZE

_AHEAD = 16
_LOOK = 0.1


class Spoiled(InfraError):
    """What has come is not worth keeping: a next try fetches it anew."""

    def __init__(self, why: str, remedy: str = "") -> None:
        super().__init__(Cause.IMAGE, why, remedy)


class Ended(Exception):
    """The pull is over, by another thread's failure or by its caller's will."""


class Intake:
    """Shared by the threads of a pull.  `descriptor` is the file's, and the caller's to close.

    `size` bytes can be read, of `total` in all (None: not known); `moved` is when something last went on (monotonic).
    `over` is set when nothing more is to be done, and `failure` then says why, if it was one.
    """

    def __init__(self, descriptor: int) -> None:
        self.size = 0
        self.total: int | None = None
        self.moved = time.monotonic()
        self.over = threading.Event()
        self.failure: BaseException | None = None
        self._descriptor = descriptor
        self._changed = threading.Condition()
        self._whole = False
        self._touched = 0

    def grow(self, size: int) -> None:
        """So many bytes can be read now.  Raises `Ended`."""
        with self._changed:
            self.size = size
            self._changed.notify_all()
        self._touched = self.touch_at(self._touched, size)

    def finish(self) -> None:
        """There will be no more."""
        with self._changed:
            self._whole = True
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """End the pull for all; the first one to fail says why."""
        with self._changed:
            if not self.over.is_set():
                self.failure = error
                self.over.set()
            self._changed.notify_all()

    def touch(self) -> None:
        """Something has gone on.  Raises `Ended`."""
        self.moved = time.monotonic()
        self.check()

    def touch_at(self, before: int, now: int) -> int:
        """Touch if `READ_SIZE` bytes lie between two places, and return the later one then: a trickle is no progress.

        Raises `Ended`.
        """
        if now - before < READ_SIZE:
            self.check()
            return before
        self.touch()
        return now

    def check(self) -> None:
        """Raises `Ended` if it is over."""
        if self.over.is_set():
            raise Ended

    def wait(self, seconds: float) -> None:
        """Do nothing for a while.  Raises `Ended`."""
        self.over.wait(seconds)
        self.touch()

    def read(self, offset: int, count: int) -> bytes:
        """Between 1 and `count` bytes from `offset`, as soon as there are any; none at the end.  Raises `Ended`."""
        with self._changed:
            self._changed.wait_for(lambda: self.size > offset or self._whole or self.over.is_set())
            left = self.size - offset
            # Who has read all that came waits for the download, and it says itself whether it goes on.
            is_behind = self._whole or left >= READ_SIZE
            count = min(count, left)
        if is_behind:
            self.touch()
        self.check()
        return os.pread(self._descriptor, count, offset) if count > 0 else b""


class Relay:
    """Hands pieces from one thread of a pull to another, which may be `_AHEAD` of them behind."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._queue: queue.Queue[bytes] = queue.Queue(_AHEAD)

    def put(self, piece: bytes) -> None:
        """Hand over a piece; an empty one says that it was the last.  Raises `Ended`."""
        while True:
            with contextlib.suppress(queue.Full):
                return self._queue.put(piece, timeout=_LOOK)
            self._intake.check()

    def get(self) -> bytes:
        """The next piece, empty at the end.  Raises `Ended`."""
        while True:
            with contextlib.suppress(queue.Empty):
                return self._queue.get(timeout=_LOOK)
            self._intake.check()


class Cursor:
    """One reader's place in an intake."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._offset = 0

    def read(self, count: int) -> bytes:
        """The next bytes, see `Intake.read`."""
        data = self._intake.read(self._offset, count)
        self._offset += len(data)
        return data

    def peek(self, count: int) -> bytes:
        """The next `count` bytes, less only at the end; they are read again afterwards."""
        data = b""
        while len(data) < count and (more := self._intake.read(self._offset + len(data), count - len(data))):
            data += more
        return data
