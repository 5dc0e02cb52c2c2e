"""Removing the logs of jobs that ended long ago: a disk can be slow, and a directory large."""

from __future__ import annotations

import logging

from setproctitle import setproctitle

from solstice.host import files
from solstice.protocol import order

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
