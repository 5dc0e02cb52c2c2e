"""Whether anything stands on a version: what may not be removed.

Two things say so, and between them there is no gap.  Who is about to use a file holds a shared lock on it (`pin`): a
worker from before it makes its VM's overlay until it ends, and the images child as long as the supervisor believes
that the version is the one to use; a lock is seen by every host that shares the file system.  And an overlay names the
file in its header for as long as it is there, also when its worker was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from solstice.images.header import BACKING_HEAD, backing_of


def backing_files(jobs: Path) -> set[Path]:
    """Every file that an overlay under the state directory's `jobs` stands on."""
    found = set()
    for overlay in jobs.glob("*/*/vm/overlay.qcow2"):
        with contextlib.suppress(FileNotFoundError), overlay.open("rb") as file:
            backing = backing_of(file.read(BACKING_HEAD))
            if backing is not None:
                found.add((overlay.parent / backing).resolve())
    return found


@contextlib.contextmanager
def unused(path: Path) -> Iterator[bool]:
    """True if nobody has pinned the file, and nobody can while the context lasts."""
    descriptor = _open_to_lock(path)
    try:
        yield _try_lock(descriptor)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False


def _open_to_lock(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)  # NFS gives an exclusive lock only on what may be written
    except PermissionError:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
