"""One process at a time has an SQLite database of ours: the lock beside the file, held for as long as it is open.

SQLite itself would let two in, one transaction after the other.  A store that was told to go, and has not gone yet,
would then still carry out what it had read while the next one already answers.  PostgreSQL is there to be shared.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.engine import Engine

from solstice.errors import UsageError

# Less than the supervisor waits for a store that starts.
PATIENCE = 20.0
_PAUSE = 0.05


@contextmanager
def held(engine: Engine, patience: float = PATIENCE) -> Iterator[None]:
    """Hold the lock of this engine's database, if it is one that has a lock.

    Waits `patience` seconds for who holds it, then raises `UsageError` with its pid.
    """
    file = engine.url.database
    if engine.dialect.name != "sqlite" or not file:
        yield
        return
    path = Path(f"{file}.lock")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        remedy = "check that the directory exists, is writable and has space"
        raise UsageError(f"the database {file} cannot be opened", f"{path}: {error.strerror}", remedy) from None
    try:
        _wait(descriptor, file, time.monotonic() + patience)
        yield
    finally:
        os.close(descriptor)


def _wait(descriptor: int, file: str, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # flock(2) has no timeout, and a signal to end it would be a second way through every caller
            if time.monotonic() < deadline:
                time.sleep(_PAUSE)
                continue
            holder = os.pread(descriptor, 32, 0).decode().strip() or "unknown"
            raise UsageError(
                f"the database {file} is in use",
                f"the process with pid {holder} holds it",
                "stop the supervisor that it belongs to",
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return
