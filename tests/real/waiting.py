"""Waiting for a server that tells nobody when it is ready.  Used by the fixtures of this folder only.

A server under test says when it is ready (a line, a socket); RabbitMQ and libvirtd do not, so they are asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable

_PAUSE = 0.1


class NotReady(Exception):
    """It did not answer in time; the text has what it said last."""


def until(ready: Callable[[], bool], *, seconds: float, what: str, evidence: Callable[[], str]) -> None:
    """Ask `ready` until it says yes.  Raises `NotReady` with `evidence()`, a log's tail, after `seconds`."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise NotReady(f"{what} is not ready after {seconds:.0f} s:\n{evidence()}")
        time.sleep(_PAUSE)
