"""Who wrote a worker's journal, and that process to be killed, if it still is that one.

A pid alone says little: it may have been given to another process since.  With the time at which the process began,
which the journal's first line has too, it is one process of this host.
"""

from __future__ import annotations

import os
from pathlib import Path

import psutil

from solstice.errors import InternalError
from solstice.host import journal
from solstice.protocol import reports


def author(path: Path) -> reports.Identity | None:
    """Who began the journal; None if nobody has yet, as a worker listens before, or if that cannot be read."""
    try:
        first, _at = reports.decode(journal.read(path)[0])
    except (InternalError, OSError, IndexError):
        return None
    return first if isinstance(first, reports.Identity) else None


def hold(identity: reports.Identity) -> int:
    """A pidfd of this process, which the caller closes; -1 if it has ended.  Raises `OSError` without a descriptor."""
    try:
        pidfd = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return -1
    try:
        if psutil.Process(identity.pid).create_time() == identity.started:
            return pidfd
    except psutil.Error:
        pass  # it has just ended
    os.close(pidfd)
    return -1
