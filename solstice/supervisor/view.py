"""What the control socket's commands answer: the supervisor as an operator sees it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from solstice import __version__
from solstice.host import clock
from solstice.host.places import Places
from solstice.protocol.lines import Message
from solstice.supervisor.control import Command
from solstice.supervisor.dispatch import Dispatch
from solstice.supervisor.jobs import Active
from solstice.supervisor.store import Store

MAX_JOBS = 1000


class View:
    """`broker` says in a word how the broker is."""

    def __init__(self, dispatch: Dispatch, store: Store, places: Places, broker: str) -> None:
        self._dispatch = dispatch
        self._store = store
        self._places = places
        self.broker = broker

    @property
    def commands(self) -> Mapping[str, Command]:
        return {"status": self.status, "jobs": self.jobs, "job": self.job}

    async def status(self, _asked: Message) -> Message:
        dispatch, scheduler = self._dispatch, self._dispatch.scheduler
        return {
            "version": __version__,
            "pid": os.getpid(),
            "owner": dispatch.owner,
            "state_dir": str(self._places.state),
            "backend": dispatch.backend.value,
            "domain_type": dispatch.acceleration.hypervisor.domain_type if dispatch.acceleration.hypervisor else None,
            "broker": self.broker,
            "capacity": scheduler.total,
            "images": {name: dispatch.images.state(name) for name in dispatch.image_names},
            "active": [_active(active) for active in scheduler.active.values()],
            "pending": [
                {"job": job.id, "label": job.label, "why": scheduler.obstacle(job)}
                for job in scheduler.pending.values()
            ],
        }

    async def jobs(self, asked: Message) -> Any:
        limit = asked.get("limit")
        return (await self._store.ask("jobs", limit=limit if isinstance(limit, int) else MAX_JOBS))["jobs"]

    async def job(self, asked: Message) -> Any:
        """One job with its attempts, and the directory where its records lie."""
        found = await self._store.ask("job", job=str(asked.get("job")))
        return {**found, "records": str(self._places.jobs / found["job"]["id"])}


def _active(active: Active) -> dict[str, Any]:
    return {
        "job": active.job.id,
        "label": active.job.label,
        "attempt": active.id.attempt,
        "phase": active.phase.value,
        "pid": active.worker.pid if active.worker else 0,
        "seconds": round(clock.wall() - active.since, 1),
    }
