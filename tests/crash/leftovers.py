"""What must not be left on a host that is idle."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import psutil

from solstice.protocol import attach
from tests.e2e.service import Service
from tests.real.waiting import until


def look_for_leftovers(service: Service, jobs: Iterable[str]) -> None:
    """Raises `AssertionError` for a VM, a file of one, a journal or a socket, `NotReady` for a process of `jobs`."""
    assert not list((service.state / "noop").iterdir())
    assert not service.domains()
    for name in ("vm", attach.JOURNAL, attach.SOCKET):
        assert not list((service.state / "jobs").glob(f"*/*/{name}")), name
    jobs = list(jobs)
    until(
        lambda: not _processes(jobs),
        seconds=5.0,
        what="the end of the workers",
        evidence=lambda: str(_processes(jobs)),
    )


def _processes(jobs: list[str]) -> list[str]:
    """The processes of these jobs: workers, their sessions, cleaners, and QEMU."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            title = " ".join(process.cmdline())
            is_ours = title.startswith("solstice: ") and any(job[:8] in title for job in jobs)
            if is_ours or any("guest=solstice-" in title and job in title for job in jobs):
                found.append(f"{process.pid} {title[:200]}")
    return found
