"""One store at a time carries out what a host asks: the lock that it holds for as long as its database is open.

The database itself would let two in, one transaction after the other.  A store that was told to go, and has not gone
yet, would then still carry out what it had read while the next one already answers.

An SQLite file belongs to one host, and the lock is a file beside it.  PostgreSQL is there to be shared, so the lock is
one of the host's own: an advisory lock, made from its owner id, of the session.  Such a lock is lost with its
connection, so each new connection takes it again before anything is carried out on it; one that cannot have it raises
`UsageError`, which ends the store, and the next store waits as any other.  (A pooler in front of the server must give
each client a session of its own.)
"""

from __future__ import annotations

import fcntl
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

from solstice.errors import UsageError

# Less than the supervisor waits for a store that starts.
PATIENCE = 20.0
_PAUSE = 0.05
_REMEDY = "stop the supervisor that it belongs to"
# Advisory locks are numbers of 8 bytes that any program may use: ours are these two letters and the 6 bytes of an id.
_LOCK_OF_HOST = b"sh"
_TRY = "SELECT pg_try_advisory_lock(%s)"
_HOLDER = """\
SELECT COALESCE(NULLIF(a.application_name, ''), 'the server''s process ' || l.pid)
FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
AND (l.classid::bigint << 32) + l.objid::bigint = %s"""


@contextmanager
def held(engine: Engine, patience: float = PATIENCE, owner: str | None = None) -> Iterator[None]:
    """Hold the lock of an SQLite file, or that of the host `owner` in a shared database; without one, nothing there.

    Waits `patience` seconds for who holds it, then raises `UsageError` with its pid: at once, or where a connection is
    made.
    """
    file = engine.url.database
    if engine.dialect.name == "sqlite" and file:
        with _held_file(file, patience):
            yield
        return
    if engine.dialect.name == "postgresql" and owner is not None:
        _hold_by_each_connection(engine, owner, patience)
    yield


@contextmanager
def _held_file(file: str, patience: float) -> Iterator[None]:
    path = Path(f"{file}.lock")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        remedy = "check that the directory exists, is writable and has space"
        raise UsageError(f"the database {file} cannot be opened", f"{path}: {error.strerror}", remedy) from None
    try:
        _wait_for_file(descriptor, file, time.monotonic() + patience)
        yield
    finally:
        os.close(descriptor)


def _wait_for_file(descriptor: int, file: str, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # flock(2) has no timeout, and a signal to end it would be a second way through every caller
            if time.monotonic() < deadline:
                time.sleep(_PAUSE)
                continue
            holder = os.pread(descriptor, 32, 0).decode().strip() or "unknown"
            why = f"the process with pid {holder} holds it"
            raise UsageError(f"the database {file} is in use", why, _REMEDY) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return


def _hold_by_each_connection(engine: Engine, owner: str, patience: float) -> None:
    number = int.from_bytes(_LOCK_OF_HOST + bytes.fromhex(owner), "big")
    # what the next one is told; the server cuts it at 63 bytes
    name = f"the store with pid {os.getpid()} on {platform.node()}"

    def take(connection: Any, _record: object) -> None:
        # not in a transaction: that would be one that does nothing, for as long as this waits
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute("SET application_name = %s", [name])
                _wait_for_session(cursor, number, time.monotonic() + patience)
        except BaseException:
            connection.close()
            raise
        connection.autocommit = False

    event.listen(engine, "connect", take)


def _wait_for_session(cursor: Any, number: int, deadline: float) -> None:
    while not _first(cursor, _TRY, number):
        # asked again and again: a statement that waits would be ended by its own limit
        if time.monotonic() >= deadline:
            holder = _first(cursor, _HOLDER, number) or "unknown: it has just gone"
            raise UsageError("the database is in use by this host", f"{holder} holds it", _REMEDY)
        time.sleep(_PAUSE)


def _first(cursor: Any, statement: str, number: int) -> Any:
    cursor.execute(statement, [number])
    row = cursor.fetchone()
    return row and row[0]
