"""A worker's journal as a file: written by the worker alone, a line at a time, and read by whoever comes after it.

One line is one write(2) to a file opened for appending, so that a reader sees whole lines and at most one torn one at
the end, whatever kills the writer.  It is not synced: after a power cut there is no VM either, and the attempt ends
with its host.

A disk that is full must not keep a worker from cleaning up.  A line that cannot be written stays in memory, is written
with the next one, in order, and is said to the supervisor all the same: a journal may lack its end, never its middle.
"""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

from solstice.protocol import attach, journal
from solstice.protocol.lines import Message

KEPT = ".bad"

log = logging.getLogger(__name__)


class Journal:
    """The writer's end; makes the file, for its user alone.

    Raises `OSError`, also if there is a journal already: an attempt has one worker.
    """

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._path = path
        self._descriptor = os.open(path, flags, 0o600)
        self._length = 0
        self._written = 0
        self._torn = False
        self.lines: list[bytes] = []
        """All of them, also those that the disk did not take."""

    def append(self, line: bytes) -> None:
        """Keep one line, with its LF; raises nothing."""
        self.lines.append(line)
        self.flush()

    @property
    def is_whole(self) -> bool:
        """The disk has taken every line."""
        return self._written == len(self.lines)

    def flush(self) -> None:
        """Write what the disk has not taken yet; raises nothing."""
        try:
            while self._written < len(self.lines):
                self._write(self.lines[self._written])
                self._written += 1
        except OSError as error:
            log.error("%s lacks its last lines: %s", self._path, error.strerror)

    def close(self) -> None:
        os.close(self._descriptor)

    def _write(self, line: bytes) -> None:
        if self._torn:
            os.ftruncate(self._descriptor, self._length)
            self._torn = False
        taken = os.write(self._descriptor, line)
        if taken < len(line):
            self._torn = True
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._length += taken


def read(path: Path, after: int = attach.FROM_THE_START) -> list[Message]:
    """What the journal has with a number above `after`; nothing if there is no journal yet.  Raises `OSError`.

    At a line that no worker wrote like this it ends, and that is told in the log.
    """
    messages, damage = _parse(path, after)
    if damage:
        log.error("a worker's journal ends before its end: %s", damage)
    return messages


def put_away(path: Path) -> None:
    """Remove a journal that was read to its end, if it is there; one that is damaged is kept beside, for a person.

    Raises `OSError`.
    """
    if _parse(path)[1]:
        path.replace(path.with_name(path.name + KEPT))
    else:
        path.unlink(missing_ok=True)


def _parse(path: Path, after: int = attach.FROM_THE_START) -> tuple[list[Message], str]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return [], ""
    return journal.parse(data, str(path), after)
