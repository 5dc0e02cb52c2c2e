"""How a supervisor comes to a worker that it has no pipe to: by the socket and the journal in the attempt's record.

The words of it are protocol/attach.py's.  Here is found out who is behind the socket, as a worker may be gone, stopped,
or another process by now, and its pidfd is taken hold of, which is then the caller's to close.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from solstice.errors import InternalError
from solstice.host import files, journal
from solstice.protocol import attach, reports
from solstice.supervisor.streams import Stream

ATTACH_TIMEOUT = 5.0
BUSY_DELAY = 1.0
BUSY_LIMIT = 60.0
_PEER = struct.Struct("3i")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Met:
    """A worker, and a stream to it; no stream if it lets nobody in.  `pidfd` is -1 if its pid was known before."""

    stream: Stream | None
    pid: int
    pidfd: int


class _Busy(Exception):
    """Somebody is there, and does not let us in now."""


async def meet(record: Path, known_pid: int) -> Met | None:
    """The worker that listens in `record`; None if nobody does.  `known_pid` is 0 if it was not met before."""
    deadline = time.monotonic() + BUSY_LIMIT
    while True:
        try:
            return await _met(record, known_pid)
        except _Busy:
            if time.monotonic() >= deadline:
                log.error("a worker lets nobody in", extra={"record": str(record)})
                return _by_journal(record / attach.JOURNAL, known_pid)
            await asyncio.sleep(BUSY_DELAY)


async def close_to_latecomers(record: Path) -> None:
    """See protocol/attach.py.  A disk that is in trouble is waited for: without this nothing may be given up."""
    while True:
        try:
            files.make_passable(record)
            (record / attach.CLOSED).touch()
            return
        except OSError as error:
            log.error("a record cannot be closed, and is tried again: %s", error)
            await asyncio.sleep(BUSY_DELAY)


async def _met(record: Path, known_pid: int) -> Met | None:
    """Raises `_Busy`."""
    try:
        async with asyncio.timeout(ATTACH_TIMEOUT):
            stream = Stream(*await asyncio.open_unix_connection(record / attach.SOCKET))
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except (OSError, TimeoutError):
        raise _Busy from None  # it is we who have no descriptor, or it has too many at its door
    met = None
    try:
        met = _identified(stream, record, known_pid)
    finally:
        if met is None:
            await stream.close()
    return met


def _identified(stream: Stream, record: Path, known_pid: int) -> Met | None:
    """Who listens, if it is who began the journal.  Raises `_Busy`.

    Its pid comes from the kernel, and the pidfd keeps that from being used again while we look.
    """
    pid, _uid, _gid = _PEER.unpack(stream.peer_socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    if not pid:
        raise _Busy  # asyncio takes a connect that has to wait for one that is made
    if known_pid:
        return Met(stream, known_pid, -1)
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    identity = _identity(record / attach.JOURNAL)
    if identity is not None and identity.pid != pid:
        os.close(pidfd)
        log.error("who listens is not the worker that began the journal", extra={"record": str(record)})
        return None
    return Met(stream, pid, pidfd)


def _by_journal(path: Path, known_pid: int) -> Met | None:
    """The process that the journal's first line names, if it is still that one."""
    if known_pid:
        return Met(None, known_pid, -1)
    identity = _identity(path)
    if identity is not None:
        with contextlib.suppress(ProcessLookupError, psutil.Error):
            pidfd = os.pidfd_open(identity.pid)
            if psutil.Process(identity.pid).create_time() == identity.started:
                return Met(None, identity.pid, pidfd)
            os.close(pidfd)
    return None


def _identity(path: Path) -> reports.Identity | None:
    """Who began the journal; None if nobody has yet, as a worker listens before, or if that cannot be read."""
    try:
        first, _at = reports.decode(journal.read(path)[0])
    except (InternalError, OSError, IndexError):
        return None
    return first if isinstance(first, reports.Identity) else None
