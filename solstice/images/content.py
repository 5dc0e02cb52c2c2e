"""The digest of what a published file holds, by which `verify` finds a damaged one.

It is not that of the file's bytes: a disk of 100 GiB is mostly holes, and hashing zeros takes minutes.  It is the
SHA-256 of the file's size and of each block of 64 KiB that has a byte in it, with its number.  So it does not depend
on where the file system keeps holes, and a copy that filled them has the same.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

PREFIX = "blocks-sha256"

_BLOCK = 64 << 10
_READ = 16 * _BLOCK
_ZEROS = bytes(_BLOCK)


def digest(path: Path, watch: Callable[[int, int | None], None], *, from_disk: bool = False) -> str:
    """`blocks-sha256:HEX` of the file, with `from_disk` as the disk has it and not as the memory remembers it.

    `watch` hears how far it is; what it raises ends the reading.
    """
    found = hashlib.sha256()
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if from_disk:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        size = os.fstat(descriptor).st_size
        found.update(size.to_bytes(8, "big"))
        for start in _pieces(descriptor, size):
            watch(start, size)
            _take(found, os.pread(descriptor, _READ, start), start)
    finally:
        os.close(descriptor)
    return f"{PREFIX}:{found.hexdigest()}"


def _take(found: hashlib._Hash, data: bytes, start: int) -> None:
    view = memoryview(data)
    for at in range(0, len(data), _BLOCK):
        block = view[at : at + _BLOCK]
        if block != _ZEROS[: len(block)]:
            found.update(((start + at) // _BLOCK).to_bytes(8, "big"))
            found.update(block)


def _pieces(descriptor: int, size: int) -> Iterator[int]:
    """Where to read `_READ` bytes, from the beginning to the end, so that everything but holes is read."""
    at = 0
    while at < size:
        data = _next_data(descriptor, at)
        if data is None:
            return
        at = max(at, data - data % _READ)
        yield at
        at += _READ


def _next_data(descriptor: int, at: int) -> int | None:
    """The next byte that is in no hole; None if only a hole follows.  A file system without holes says `at`."""
    try:
        return os.lseek(descriptor, at, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise
