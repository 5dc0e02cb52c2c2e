"""What the control socket's reading commands answer: the supervisor as an operator sees it.  Changes nothing."""

from __future__ import annotations

import os
import platform
import time
from typing import Any

from solstice import __version__
from solstice.broker.connection import Broker
from solstice.errors import UsageError
from solstice.host.places import Places
from solstice.protocol.lines import Message
from solstice.protocol.store import ErrorKind
from solstice.protocol.urls import mask_url
from solstice.supervisor.capacity import Obstacle
from solstice.supervisor.dispatch import Dispatch
from solstice.supervisor.jobs import Active, Job
from solstice.supervisor.store import Store, StoreRefused
from solstice.supervisor.valve import Valve

MAX_JOBS = 1000
# What `status` shows of the pending ones; the rest is counted.
SHOWN = 200


class View:
    def __init__(self, dispatch: Dispatch, store: Store, places: Places, valve: Valve) -> None:
        self._dispatch = dispatch
        self._store = store
        self._places = places
        self.broker = Broker.DOWN
        self.broker_why = "not connected yet"
        self._valve = valve

    async def status(self, _asked: Message) -> Message:
        dispatch, scheduler = self._dispatch, self._dispatch.scheduler
        now = time.monotonic()
        hypervisor = dispatch.acceleration.hypervisor
        return {
            "version": __version__,
            "pid": os.getpid(),
            "name": platform.node(),
            "owner": dispatch.owner,
            "state_dir": str(self._places.state),
            "backend": dispatch.backend.value,
            "domain_type": hypervisor.domain_type.value if hypervisor else None,
            "broker": self.broker.value,
            "broker_why": self.broker_why,
            "intake": self._valve.state,
            "consuming": self._valve.consuming,
            "store": self._store.state,
            "paused": scheduler.labels.all_paused,
            "capacity": self._capacity(),
            "labels": self._labels(),
            "active": [_active(active, now) for active in scheduler.active.values()],
            "pending": [
                _pending(job, obstacle, place, now)
                for place, (job, obstacle) in enumerate(scheduler.places()[:SHOWN], 1)
            ],
        }

    async def jobs(self, asked: Message) -> Any:
        """The newest jobs; `limit` and `state` are optional."""
        limit, state = asked.get("limit"), asked.get("state")
        filtered = {"state": str(state)} if state else {}
        found = await self._store.ask("jobs", limit=limit if isinstance(limit, int) else MAX_JOBS, **filtered)
        return found["jobs"]

    async def job(self, asked: Message) -> Any:
        """One job with its attempts, and the directory where its records lie."""
        found = await self.find(str(asked.get("job")))
        request = found["job"]["request"]
        if "repo_url" in request:
            request["repo_url"] = mask_url(request["repo_url"])
        return {**found, "records": str(self._places.jobs / found["job"]["id"])}

    async def find(self, job: str) -> Any:
        """The store's answer about one job, by its id or the beginning of it.  Raises `UsageError`."""
        try:
            return await self._store.ask("job", job=job)
        except StoreRefused as refused:
            if refused.kind is ErrorKind.UNKNOWN_JOB:
                raise UsageError(
                    f"job {job:.40}",
                    "no job that this host accepted has an id that begins so",
                    "a request that waits in the broker is not known here yet; see `solstice jobs`",
                ) from None
            if refused.kind is ErrorKind.BAD_REQUEST:
                why = refused.why.partition(": ")[2] or refused.why
                raise UsageError(
                    f"job {job:.40}", why, "give an id as `solstice jobs` shows it, or more of it"
                ) from None
            raise

    def _capacity(self) -> dict[str, Any]:
        scheduler = self._dispatch.scheduler
        usage, limits = scheduler.usage(), scheduler.limits
        return {
            "slots": {"used": usage.slots, "limit": limits.slots},
            "booting": {"used": usage.booting, "limit": limits.booting},
            "cpus": {"used": usage.cpus, "limit": limits.cpus},
            "memory_mib": {"used": usage.memory_mib, "limit": limits.memory_mib},
            "disk_mib": {
                "free": usage.free_disk_mib,
                "promised": usage.promised_mib,
                "floor": limits.disk_floor_mib,
            },
            "pending": {"used": len(scheduler.pending), "limit": self._dispatch.pending_limit},
        }

    def _labels(self) -> list[dict[str, Any]]:
        dispatch, scheduler = self._dispatch, self._dispatch.scheduler
        catalogue, used = dispatch.catalogue, scheduler.usage().per_image
        limits = scheduler.limits
        waiting = [job.image.name for job in scheduler.pending.values()]
        return [
            {
                "image": name,
                "labels": [label for label in catalogue.image_map.labels() if catalogue.image_of(label) == name],
                "state": dispatch.image_state(name),
                "used": used[name],
                "limit": min(limits.slots, limits.per_image.get(name, limits.slots)),
                "pending": waiting.count(name),
                "paused": name in scheduler.labels.paused,
                "quarantine": scheduler.labels.quarantine(name),
            }
            for name in sorted(catalogue.image_map.images)
        ]


def _active(active: Active, now: float) -> dict[str, Any]:
    return {
        "job": active.job.id,
        "label": active.job.label,
        "attempt": active.id.attempt,
        "phase": active.phase.value,
        "pid": active.worker.pid if active.worker else 0,
        "seconds": round(now - active.since, 1),
        "stopping": active.stopping.outcome.detail if active.stopping else None,
    }


def _pending(job: Job, obstacle: Obstacle | None, place: int, now: float) -> dict[str, Any]:
    return {
        "job": job.id,
        "label": job.label,
        "place": place,
        "priority": job.request.priority,
        "seconds": round(now - job.since, 1),
        "resource": obstacle.resource.value if obstacle else None,
        "why": obstacle.text if obstacle else None,
    }
