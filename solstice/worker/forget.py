"""Removing the logs of jobs that ended long ago: a disk can be slow, and a directory large."""

from __future__ import annotations

import itertools
import logging
import re
from pathlib import Path

from setproctitle import setproctitle

from solstice.host import files
from solstice.protocol import order

_JOB = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# One answer's worth; the next time there are others.
_MOST = 200

log = logging.getLogger(__name__)


def forget(what: order.Forget) -> tuple[str, ...]:
    """Those jobs whose logs are gone now, on the disk too; the others are told in the log.  Raises `OSError`."""
    setproctitle("solstice: remover")
    removed = []
    for id in what.ids:
        try:
            files.remove_tree(what.jobs / id)
        except OSError as error:
            log.error("logs of job %s cannot be removed: %s", id, error.strerror)
        else:
            removed.append(id)
    files.sync(what.jobs)
    return tuple(removed)


def stale(what: order.Stale) -> tuple[str, ...]:
    """Some of the jobs whose records nothing has changed since then, whoever knows them.  Raises `OSError`."""
    setproctitle("solstice: remover")
    old = (
        record.name for record in what.jobs.iterdir() if _JOB.fullmatch(record.name) and _newest(record) < what.before
    )
    return tuple(itertools.islice(old, _MOST))


def _newest(record: Path) -> float:
    return max(path.stat().st_mtime for path in (record, *record.rglob("*")))
