"""`solstice why`: what a job waits for, its place, and when it may start; or why there is nothing to wait for."""

from __future__ import annotations

import time
from typing import Any

from solstice.errors import UsageError
from solstice.lifecycle import JobState
from solstice.protocol.lines import Message
from solstice.supervisor.dispatch import Dispatch
from solstice.supervisor.forecast import Forecast, Running
from solstice.supervisor.intake import Intake
from solstice.supervisor.jobs import Job
from solstice.supervisor.store import Store
from solstice.supervisor.view import View


class Why:
    def __init__(self, dispatch: Dispatch, store: Store, intake: Intake, view: View) -> None:
        self._dispatch = dispatch
        self._store = store
        self._intake = intake
        self._view = view

    async def why(self, asked: Message) -> Any:
        """→ `{"job", "state", "place", "resource", "why", "starts_in"}`; what does not apply is null.

        Raises `UsageError` for a job that this host does not know.
        """
        wanted = str(asked.get("job"))
        try:
            row = (await self._view.find(wanted))["job"]
        except UsageError:
            rejection = self._intake.rejection(wanted)
            if rejection is None:
                raise
            return _answer(wanted, "rejected", f"it was rejected: {rejection}")
        job, active = row["id"], self._dispatch.scheduler.active.get(row["id"])
        if job in self._dispatch.scheduler.pending:
            durations = (await self._store.ask("durations"))["seconds"]
            return self._of_pending(job, durations)
        if active is not None:
            return _answer(job, row["state"], f"it is not waiting: attempt {active.id.attempt} is {active.phase}")
        if not JobState(row["state"]).is_terminal:
            return _answer(job, row["state"], "it is not waiting: it has just started, or is about to end")
        ended = f"{row['detail']} [{row['cause']}]" if row["cause"] else "it did what it should"
        return _answer(job, row["state"], f"it has ended: {ended}")

    def _of_pending(self, job_id: str, durations: dict[str, float]) -> Any:
        for place, (job, obstacle) in enumerate(self._dispatch.scheduler.places(), 1):
            if job.id == job_id:
                return {
                    **_answer(job.id, "accepted", obstacle.text if obstacle else "its turn has come"),
                    "place": place,
                    "resource": obstacle.resource.value if obstacle else None,
                    "starts_in": self._starts_in(job, durations),
                }
        return _answer(job_id, "running", "it is not waiting: it has just started")

    def _starts_in(self, job: Job, durations: dict[str, float]) -> float | None:
        scheduler, now = self._dispatch.scheduler, time.monotonic()
        forecast = Forecast(
            scheduler.limits, scheduler.usage().free_disk_mib, scheduler.gate, scheduler.turns.copy(), durations
        )
        running = [Running(active.job, now - active.since) for active in scheduler.active.values()]
        seconds = forecast.start_of(job, scheduler.pending.values(), running, now)
        return None if seconds is None else round(seconds, 1)


def _answer(job: str, state: str, why: str) -> dict[str, Any]:
    return {"job": job, "state": state, "why": why, "place": None, "resource": None, "starts_in": None}
