"""The file that a guest's bytes end in: raw, bounded, written straight by the session.

A guest can print for ever; what exceeds the limit is counted, and its amount is said at the end.
"""

from __future__ import annotations

import os

LOG_LIMIT = 64 << 20
CONSOLE_LIMIT = 1 << 20


class JobLog:
    """A bounded log on an open descriptor, which it owns."""

    def __init__(self, descriptor: int, limit: int) -> None:
        self._descriptor = descriptor
        self._room = limit
        self._missing = 0
        self._at_line_start = True

    def write(self, data: bytes) -> None:
        kept = data[: self._room]
        self._put(kept)
        self._room -= len(kept)
        self._missing += len(data) - len(kept)

    def mark(self, text: str) -> None:
        """A line of our own between the guest's, always at the start of a line; not bounded."""
        start = "" if self._at_line_start else "\n"
        self._put(f"{start}==> {text}\n".encode())

    def close(self) -> None:
        if self._missing:
            self.mark(f"{self._missing} bytes more were printed and not kept")
        os.close(self._descriptor)

    def _put(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
        if data:
            self._at_line_start = data.endswith(b"\n")
