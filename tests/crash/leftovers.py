"""What must not be left on a host that is idle."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import psutil

from solstice.protocol import attach
from tests.e2e.service import Service
from tests.real.waiting import until


def look_for_leftovers(service: Service, jobs: Iterable[str]) -> None:
    """Raises `AssertionError` for a VM, a VM's directory, a journal or a socket, `NotReady` for a process of `jobs`."""
    assert not list((service.state / "noop").iterdir())
    for name in ("vm", attach.JOURNAL, attach.SOCKET):
        assert not list((service.state / "jobs").glob(f"*/*/{name}")), name
    short = [job[:8] for job in jobs]
    until(lambda: not _titled(short), seconds=5.0, what="the end of the workers", evidence=lambda: str(_titled(short)))


def _titled(short: list[str]) -> list[str]:
    """The processes of these jobs: workers, their sessions, cleaners."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            title = " ".join(process.cmdline())
            if title.startswith("solstice: ") and any(name in title for name in short):
                found.append(f"{process.pid} {title}")
    return found
