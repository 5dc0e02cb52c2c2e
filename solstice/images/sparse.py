"""Writing a disk so that what is zero in it takes no room: those stretches are never written, and become holes."""

from __future__ import annotations

import os

_HOLE = 32 << 10
_ZEROS = bytes(_HOLE)


class Sparse:
    """Writes to `descriptor`, an empty file of the caller's, from its start.  `size` is how far it has come."""

    def __init__(self, descriptor: int) -> None:
        self.size = 0
        self._descriptor = descriptor

    def write(self, data: bytes) -> None:
        """Append `data`.  Raises `OSError`."""
        start = at = 0
        while at < len(data):
            # up to the next multiple in the file, wherever this piece begins
            end = min(len(data), at + _HOLE - (self.size + at) % _HOLE)
            if data.startswith(_ZEROS[: end - at], at):
                self._put(data, start, at)
                start = end
            at = end
        self._put(data, start, at)
        self.size += len(data)

    def finish(self) -> None:
        """All is written: a hole at the end counts too."""
        os.ftruncate(self._descriptor, self.size)

    def _put(self, data: bytes, start: int, end: int) -> None:
        view = memoryview(data)
        while start < end:
            start += os.pwrite(self._descriptor, view[start:end], self.size + start)
