"""How a file comes to its place: staged beside it, whole, on disk, and never over a file that is there.

    .NAME.stage    locked by the process that writes it; left behind only by a process that was killed
    NAME           a second name of the finished stage, then its only one

Two hosts' children can want the same file at the same time (`solstice run` beside `solstice serve`): the lock lets one
of them write.  A stage nobody holds is the next writer's, who begins it anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from solstice.errors import Cause, InfraError

MODE = 0o444

_HOLE = 64 << 10
_ZEROS = bytes(_HOLE)


class Stage:
    """A file on its way to `target`; made by `stage`, which also cleans up."""

    def __init__(self, path: Path, target: Path, descriptor: int) -> None:
        self.path = path
        self._target = target
        self._fd = descriptor
        self._size = 0

    def write(self, data: bytes) -> None:
        """Append `data`; what is zero in it becomes a hole."""
        for start in range(0, len(data), _HOLE):
            block = data[start : start + _HOLE]
            if block != _ZEROS:
                _write_at(self._fd, block, self._size)
            self._size += len(block)

    def finish(self) -> None:
        """All is written: put it on disk.  The file has its final size and mode from here on."""
        os.ftruncate(self._fd, self._size)
        os.fchmod(self._fd, MODE)
        os.fsync(self._fd)

    def publish(self) -> None:
        """Give the finished file its name.  If another file has got that meanwhile, that one stays."""
        # link and not rename: rename would replace what an operator put there.
        with contextlib.suppress(FileExistsError):
            os.link(self.path, self._target)
        _sync_directory(self._target.parent)


@contextlib.contextmanager
def stage(target: Path) -> Iterator[Stage]:
    """An empty, locked stage for `target`, gone when the context is left.

    Raises `InfraError` if another process is at it, `OSError` if the file system refuses.
    """
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    path = _stage_of(target)
    descriptor = _create_locked(path)
    try:
        yield Stage(path, target, descriptor)
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def drop_leftover(target: Path) -> None:
    """Remove the stage of a process that was killed, if there is one and nobody is at it."""
    # Where it cannot be removed it does no harm either.
    with contextlib.suppress(InfraError, OSError):
        _remove_unheld(_stage_of(target))


def _stage_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.stage")


def _create_locked(path: Path) -> int:
    """A new file at `path`, locked.  Three tries: between creating and locking, another process may remove it."""
    for _ in range(3):
        _remove_unheld(path)
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            if _lock(descriptor, path):
                return descriptor
            os.close(descriptor)
    raise _busy(path)


def _remove_unheld(path: Path) -> None:
    """Remove a stage that nobody holds.  Raises `InfraError` if somebody does.

    Only the name is removed, never the content: a writer killed after it published leaves a second name of the image.
    """
    try:
        descriptor = _open(path)
    except FileNotFoundError:
        return
    try:
        if not _lock(descriptor, path):
            raise _busy(path)
        path.unlink()
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    flags = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        return os.open(path, os.O_RDWR | flags)  # NFS locks only what may be written
    except PermissionError:
        return os.open(path, os.O_RDONLY | flags)  # a finished one has the mode of an image


def _lock(descriptor: int, path: Path) -> bool:
    """True if the file is locked now and still is the one that `path` names."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except (BlockingIOError, FileNotFoundError):
        return False


def _busy(path: Path) -> InfraError:
    return InfraError(Cause.IMAGE, f"{path}: another process is writing this image", "nothing: it is tried again")


def _write_at(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
