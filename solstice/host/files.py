"""Files and directories."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from pathlib import Path

_PIN_SECONDS = 10.0
_LOCK_PAUSE = 0.05


def make_passable(directory: Path) -> None:
    """Make `directory`, and its parents, such that any user may pass through them but not look: mode 0711.

    By chmod, because the umask cuts what mkdir is told, and QEMU's user must come through.
    """
    if not directory.exists():
        make_passable(directory.parent)
        directory.mkdir(exist_ok=True)
        directory.chmod(0o711)


def remove_tree(directory: Path) -> None:
    """Remove `directory` and all in it; that it is gone, or goes while we look, is fine.

    Two cleaners, one of them of the supervisor before, may both be at it; rmtree then finds
    entries missing that it has just listed.
    """
    while directory.exists():
        try:
            shutil.rmtree(directory)
        except FileNotFoundError:
            continue


def replace(path: Path, text: str) -> None:
    """Make `text` what the file says, or leave it as it was; it is on the disk afterwards.  Raises `OSError`."""
    staged = path.with_name(f"{path.name}.new")
    with staged.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    staged.rename(path)
    sync(path.parent)


def sync(directory: Path) -> None:
    """Return when it is on the disk what is in `directory`, and what is no longer.  Raises `OSError`."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def pin(path: Path) -> int:
    """Keep others from removing the file: a descriptor with a shared lock, which is held until it is closed.

    Raises `FileNotFoundError` if it is gone, or goes while we wait for whoever is about to remove it, and
    `BlockingIOError` if somebody keeps it locked, as any user who may read it can.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        is_locked = lock(descriptor, fcntl.LOCK_SH, time.monotonic() + _PIN_SECONDS)
        path.stat()
    except BaseException:
        os.close(descriptor)
        raise
    if not is_locked:
        os.close(descriptor)
        raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK), str(path))
    return descriptor


def lock(descriptor: int, kind: int, deadline: float) -> bool:
    """flock(2), which has no timeout of its own: False if somebody has it until `deadline` (monotonic)."""
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_LOCK_PAUSE)
